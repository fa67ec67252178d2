// The file in ONNX Runtime: float32 in and out.
class Model {
 public:
  explicit Model(const char* path, int threads = 1) : session_(nullptr) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    session_ = Ort::Session(env_, path, options);
  }

  // Runs one image of stored values (height, width, channels).
  std::vector<std::vector<float>> Run(const std::vector<uint8_t>& stored) {
    Ort::AllocatorWithDefaultOptions allocator;
    Shape shape = session_.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    for (int64_t& size : shape) size = size < 0 ? 1 : size;  // a free batch
    std::vector<float> values = Prepare(stored, shape);
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto input = Ort::Value::CreateTensor<float>(memory, values.data(), values.size(),
                                                 shape.data(), shape.size());
    auto input_name = session_.GetInputNameAllocated(0, allocator);
    std::vector<Ort::AllocatedStringPtr> held;
    std::vector<const char*> names;
    for (size_t n = 0; n < session_.GetOutputCount(); ++n) {
      held.push_back(session_.GetOutputNameAllocated(n, allocator));
      names.push_back(held.back().get());
    }
    const char* input_names[] = {input_name.get()};
    auto outputs = session_.Run(Ort::RunOptions{nullptr}, input_names, &input, 1, names.data(),
                                names.size());
    std::vector<std::vector<float>> found;
    for (auto& output : outputs) {
      const float* first = output.GetTensorData<float>();
      found.emplace_back(first, first + output.GetTensorTypeAndShapeInfo().GetElementCount());
    }
    return found;
  }

 private:
  Ort::Env env_;
  Ort::Session session_;
};
