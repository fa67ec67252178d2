"""What binaries of TFLite's benchmark printed, quoted from public places and shortened.

The figures are other people's; nothing was changed but that repeated rows of tables and lines that
only repeat the arguments are left out.
"""

# A phone in 2019: github.com/yuenshome/yuenshome.github.io, issue 77.
OF_2019 = """\
STARTING!
Min num runs: [10]
Num threads: [1]
Graph: [/data/local/tmp/tflite/tfmodel/mobilenet_v1_1.0_224_quant.tflite]
Use nnapi : [0]
nnapi error: unable to open library libneuralnetworks.so
Loaded model /data/local/tmp/tflite/tfmodel/mobilenet_v1_1.0_224_quant.tflite
resolved reporter
Initialized session in 9.933ms
Running benchmark for at least 4 iterations and at least 0.5 seconds
count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944

Running benchmark for at least 10 iterations and at least 1 seconds
count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
"""

# Another with --enable_op_profiling=true: a run of TensorFlow 1.15's tool on a phone, published
# with MobileNet V2; the table is aligned by blanks.
OF_2019_OPERATORS = """\
Running benchmark for at least 1 iterations and at least 0.5 seconds
count=6 first=91810 curr=85097 min=84834 max=91810 avg=86184.3 std=2519

Running benchmark for at least 50 iterations and at least 1 seconds
count=50 first=118810 curr=114219 min=88216 max=129193 avg=115062 std=7678

Average inference timings in us: Warmup: 86184.3, Init: 1892, no stats: 115062
============================== Run Order ==============================
                     [node type]                  [start]         [first]        [avg ms]            [%]          [cdf%]  [mem KB]      [times called]  [Name]
                         CONV_2D                    0.000           5.567           7.237         6.297%          6.297%     0.000              1       [MobilenetV2/Conv/Relu6]
               DEPTHWISE_CONV_2D                    7.241           3.518           3.726         3.243%          9.539%     0.000              1       [MobilenetV2/expanded_conv/depthwise/Relu6]
                         RESHAPE                  115.050           0.005           0.005         0.004%        100.000%     0.000              1       [output]

============================== Top by Computation Time ==============================
                     [node type]                  [start]         [first]        [avg ms]            [%]          [cdf%]  [mem KB]      [times called]  [Name]
                         CONV_2D                   14.688          12.247          17.846        15.529%         15.529%     0.000              1       [MobilenetV2/expanded_conv_1/expand/Relu6]

Number of nodes executed: 65
"""  # noqa: E501

# A phone in 2020: github.com/tensorflow/tensorflow, issue 42507.
OF_2020 = """\
STARTING!
Duplicate flags: num_threads
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [/data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite]
Enable op profiling: [1]
#threads used for CPU inference: [4]
Loaded model /data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite
The input model file size (MB): 0.004448
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
Peak memory footprint (MB): init=0 overall=12.8672
"""  # noqa: E501

# Arm's Total Compute 2022 documentation, "expected test results": XNNPACK's operators by tabs,
# and a table of the initialization before that of the runs.
OF_2022_OPERATORS = """\
INFO: STARTING!
INFO: Min num runs: [10]
INFO: Graph: [mobile_object_localizer_v1.tflite]
INFO: Enable op profiling: [1]
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 1.86664
INFO: Initialized session in 16.772ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=67 first=8781 curr=7197 min=6335 max=9775 avg=7514.93 std=419

INFO: Running benchmark for at least 10 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=67 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256

INFO: Inference timings in us: Init: 16772, First inference: 8781, Warmup (avg): 7514.93, Inference (avg): 7454.97
INFO: Memory footprint delta from the start of the tool (MB): init=8.44922 overall=10.8789
INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t                         [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t             ModifyGraphWithDelegate\t   14.842\t   14.842\t 99.317%\t 99.317%\t  3428.000\t        1\tModifyGraphWithDelegate/0
\t                     AllocateTensors\t    0.102\t    0.102\t  0.683%\t100.000%\t     0.000\t        1\tAllocateTensors/0

Number of nodes executed: 2
Timings (microseconds): count=1 curr=14944
Memory (bytes): count=0
2 nodes observed

INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t                         [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t       Convolution (NHWC, QU8) IGEMM\t    0.267\t    0.278\t  3.783%\t  3.783%\t     0.000\t        1\tDelegate/Convolution (NHWC, QU8) IGEMM:0
\t      Convolution (NHWC, QU8) DWConv\t    0.243\t    0.271\t  3.681%\t  7.464%\t     0.000\t        1\tDelegate/Convolution (NHWC, QU8) DWConv:1
\t                       CONCATENATION\t    0.004\t    0.004\t  0.049%\t 81.766%\t     0.000\t        1\t[concat_1]:108
\t        TFLite_Detection_PostProcess\t    1.342\t    1.339\t 18.197%\t100.000%\t     0.000\t        1\t[TFLite_Detection_PostProcess, TFLite_Detection_PostProcess:1]:114

============================== Top by Computation Time ==============================
\t                         [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t        TFLite_Detection_PostProcess\t    1.342\t    1.339\t 18.197%\t 18.197%\t     0.000\t        1\t[TFLite_Detection_PostProcess, TFLite_Detection_PostProcess:1]:114

Number of nodes executed: 115
Timings (microseconds): count=67 first=7068 curr=7410 min=6282 max=7683 avg=7360.09 std=256
Memory (bytes): count=0
115 nodes observed
"""  # noqa: E501

# A Qualcomm board (qrb2210) since the percentiles: the README of a public TFLite container for it.
WITH_PERCENTILES = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [mobilenet_quant_v1_224.tflite]
INFO: Signature to run: []
INFO: Use gpu: [0]
INFO: Loaded model mobilenet_quant_v1_224.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 4.2761
INFO: Initialized session in 87.639ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=5 first=106436 curr=105929 min=105929 max=106436 avg=106065 std=193 p5=105929 median=105948 p95=106436

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=106022 curr=105780 min=105416 max=106528 avg=105784 std=260 p5=105485 median=105718 p95=106281

INFO: Inference timings in us: Init: 87639, First inference: 106436, Warmup (avg): 106065, Inference (avg): 105784
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=14.4414 overall=14.8164
"""  # noqa: E501

# Through Android's log, on an OPPO A3x: a published benchmark report of YOLO26-large; large times
# are written with an exponent, and a single run of the warm-up has no minimum.
THROUGH_LOGCAT = """\
07-08 15:33:55.768 I/tflite  ( 5395): Log parameter values verbosely: [0]
07-08 15:33:55.769 I/tflite  ( 5395): Graph: [/data/local/tmp/yolo26l_fp16.tflite]
07-08 15:33:55.772 I/tflite  ( 5395): Initialized TensorFlow Lite runtime.
07-08 15:33:55.786 I/tflite  ( 5395): Created TensorFlow Lite XNNPACK delegate for CPU.
07-08 15:33:55.790 I/tflite  ( 5395): Replacing 1036 out of 1097 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 23 partitions for subgraph 0.
07-08 15:33:56.228 I/tflite  ( 5395): The input model file size (MB): 49.9313
07-08 15:33:56.228 I/tflite  ( 5395): Initialized session in 458.883ms.
07-08 15:33:58.992 I/tflite  ( 5395): count=1 curr=2732148 p5=2732148 median=2732148 p95=2732148
07-08 15:34:26.201 I/tflite  ( 5395): count=10 first=2653894 curr=2709263 min=2640862 max=3025403 avg=2.71985e+06 std=105101 p5=2640862 median=2709263 p95=3025403
07-08 15:34:26.202 I/tflite  ( 5395): Inference timings in us: Init: 458883, First inference: 2732148, Warmup (avg): 2.73215e+06, Inference (avg): 2.71985e+06
07-08 15:34:26.202 I/tflite  ( 5395): Memory footprint delta from the start of the tool (MB): init=286.73 overall=337
"""  # noqa: E501

# LiteRT's binary on a phone with SME2: an Arm learning path, "Benchmark the LiteRT model".
OF_LITERT = """\
INFO: [litert/runtime/accelerators/auto_registration.cc:148] CPU accelerator registered.
INFO: [litert/runtime/compiled_model.cc:415] Flatbuffer model initialized directly from incoming litert model.
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 1 out of 1 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0.
INFO: The input model file size (MB): 3.27774
INFO: Initialized session in 4.478ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1055 first=1033 curr=473 min=443 max=1033 avg=465.319 std=18 p5=459 median=463 p95=478

INFO: Running benchmark for at least 1000 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=2112 first=463 curr=459 min=442 max=979 avg=464.545 std=13 p5=460 median=462 p95=478

INFO: [./litert/tools/benchmark_litert_model.h:81]\x20
========== BENCHMARK RESULTS ==========
INFO: [./litert/tools/benchmark_litert_model.h:82] Model initialization: 4.48 ms
INFO: [./litert/tools/benchmark_litert_model.h:84] Warmup (first):       1.03 ms
INFO: [./litert/tools/benchmark_litert_model.h:86] Warmup (avg):         0.47 ms (1055 runs)
INFO: [./litert/tools/benchmark_litert_model.h:88] Inference (avg):      0.46 ms (2112 runs)
INFO: [./litert/tools/benchmark_litert_model.h:92] Inference (min):      0.44 ms
INFO: [./litert/tools/benchmark_litert_model.h:94] Inference (max):      0.98 ms
INFO: [./litert/tools/benchmark_litert_model.h:96] Inference (std):      0.01
INFO: [./litert/tools/benchmark_litert_model.h:103] Throughput:           525.55 MB/s
INFO: [./litert/tools/benchmark_litert_model.h:112]\x20
Memory Usage:
INFO: [./litert/tools/benchmark_litert_model.h:114] Init footprint:       8.94 MB
INFO: [./litert/tools/benchmark_litert_model.h:116] Overall footprint:    11.51 MB
INFO: [./litert/tools/benchmark_litert_model.h:123] Peak memory usage not available. (peak_mem_mb <= 0)
INFO: [./litert/tools/benchmark_litert_model.h:126] ======================================

INFO: [./litert/tools/benchmark_litert_model.h:179]\x20
============================== Run Order ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t        LiteRT::Run[buffer registration]\t    0.020\t    0.014\t  3.309%\t  3.309%\t     0.000\t        1\tLiteRT::Run[buffer registration]/0
\t                         AllocateTensors\t    0.291\t    0.291\t  0.022%\t  3.331%\t   452.000\t        0\tAllocateTensors/0
\t                     Static Reshape (NC)\t    0.085\t    0.003\t  0.739%\t  4.070%\t     0.000\t        1\tDelegate/Static Reshape (NC):0
\t         Fully Connected (NC, PF32) GEMM\t    0.538\t    0.382\t 92.948%\t 97.018%\t     0.000\t        1\tDelegate/Fully Connected (NC, PF32) GEMM:1
\t                LiteRT::Run[Buffer sync]\t    0.013\t    0.012\t  2.982%\t100.000%\t     0.000\t        1\tLiteRT::Run[Buffer sync]/0

============================== Top by Computation Time ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         Fully Connected (NC, PF32) GEMM\t    0.538\t    0.382\t 92.948%\t 92.948%\t     0.000\t        1\tDelegate/Fully Connected (NC, PF32) GEMM:1

Number of nodes executed: 5
Timings (microseconds): count=3166 first=947 curr=406 min=390 max=947 avg=411.071 std=14
Memory (bytes): count=0
5 nodes observed
"""  # noqa: E501
