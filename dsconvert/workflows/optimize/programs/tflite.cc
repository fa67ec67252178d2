// The file in LiteRT: float32 out; integers inside are scaled here.
class Model {
 public:
  explicit Model(const char* path, int threads = 1) {
    model_ = TfLiteModelCreateFromFile(path);
    if (!model_) throw std::runtime_error(std::string("cannot read ") + path);
    TfLiteInterpreterOptions* options = TfLiteInterpreterOptionsCreate();
    TfLiteInterpreterOptionsSetNumThreads(options, threads);
    interpreter_ = TfLiteInterpreterCreate(model_, options);
    TfLiteInterpreterOptionsDelete(options);
    if (!interpreter_ || TfLiteInterpreterAllocateTensors(interpreter_) != kTfLiteOk)
      throw std::runtime_error(std::string("cannot prepare ") + path);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() {
    if (interpreter_) TfLiteInterpreterDelete(interpreter_);
    if (model_) TfLiteModelDelete(model_);
  }

  // Runs one image of stored values (height, width, channels).
  std::vector<std::vector<float>> Run(const std::vector<uint8_t>& stored) {
    TfLiteTensor* input = TfLiteInterpreterGetInputTensor(interpreter_, 0);
    Write(Prepare(stored, ShapeOf(input)), input);
    if (TfLiteInterpreterInvoke(interpreter_) != kTfLiteOk)
      throw std::runtime_error("the model could not be run");
    std::vector<std::vector<float>> found;
    for (int n = 0; n < TfLiteInterpreterGetOutputTensorCount(interpreter_); ++n)
      found.push_back(Read(TfLiteInterpreterGetOutputTensor(interpreter_, n)));
    return found;
  }

 private:
  static Shape ShapeOf(const TfLiteTensor* tensor) {
    Shape shape;
    for (int axis = 0; axis < TfLiteTensorNumDims(tensor); ++axis)
      shape.push_back(TfLiteTensorDim(tensor, axis));
    return shape;
  }

  template <typename T>
  static void WriteIntegers(const std::vector<float>& values, TfLiteTensor* input) {
    const TfLiteQuantizationParams how = TfLiteTensorQuantizationParams(input);
    std::vector<T> stored(values.size());
    std::transform(values.begin(), values.end(), stored.begin(), [&](float value) {
      const float level = std::nearbyint(value / how.scale) + how.zero_point;
      return static_cast<T>(std::clamp<float>(level, std::numeric_limits<T>::min(),
                                              std::numeric_limits<T>::max()));
    });
    TfLiteTensorCopyFromBuffer(input, stored.data(), stored.size() * sizeof(T));
  }

  static void Write(const std::vector<float>& values, TfLiteTensor* input) {
    switch (TfLiteTensorType(input)) {
      case kTfLiteInt8: return WriteIntegers<int8_t>(values, input);
      case kTfLiteUInt8: return WriteIntegers<uint8_t>(values, input);
      case kTfLiteInt16: return WriteIntegers<int16_t>(values, input);
      case kTfLiteFloat32:
        TfLiteTensorCopyFromBuffer(input, values.data(), values.size() * sizeof(float));
        return;
      default: throw std::runtime_error("an input of this type is not handled");
    }
  }

  template <typename T>
  static std::vector<float> ReadIntegers(const TfLiteTensor* output) {
    const TfLiteQuantizationParams how = TfLiteTensorQuantizationParams(output);
    const auto* stored = static_cast<const T*>(TfLiteTensorData(output));
    std::vector<float> values(TfLiteTensorByteSize(output) / sizeof(T));
    std::transform(stored, stored + values.size(), values.begin(),
                   [&](T level) { return (level - how.zero_point) * how.scale; });
    return values;
  }

  static std::vector<float> Read(const TfLiteTensor* output) {
    switch (TfLiteTensorType(output)) {
      case kTfLiteInt8: return ReadIntegers<int8_t>(output);
      case kTfLiteUInt8: return ReadIntegers<uint8_t>(output);
      case kTfLiteInt16: return ReadIntegers<int16_t>(output);
      case kTfLiteFloat32: {
        const auto* values = static_cast<const float*>(TfLiteTensorData(output));
        return {values, values + TfLiteTensorByteSize(output) / sizeof(float)};
      }
      default: throw std::runtime_error("an output of this type is not handled");
    }
  }

  TfLiteModel* model_ = nullptr;
  TfLiteInterpreter* interpreter_ = nullptr;
};
