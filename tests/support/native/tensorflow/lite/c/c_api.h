// The part of LiteRT's C API that programs of a run use, for a model that gives its input back:
// int8, (1, 2, 2, 3), scale 1/64, zero point -3.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
enum TfLiteType {
  kTfLiteFloat32 = 1,
  kTfLiteUInt8 = 3,
  kTfLiteInt16 = 7,
  kTfLiteInt8 = 9
};
struct TfLiteQuantizationParams { float scale; int32_t zero_point; };
struct TfLiteModel {};
struct TfLiteInterpreterOptions { int32_t threads; };
struct TfLiteTensor { int8_t data[12]; };
struct TfLiteInterpreter { TfLiteTensor input, output; };

inline TfLiteModel* TfLiteModelCreateFromFile(const char* path) {
  return std::strcmp(path, "files/net.tflite") ? nullptr : new TfLiteModel;
}
inline void TfLiteModelDelete(TfLiteModel* model) { delete model; }
inline TfLiteInterpreterOptions* TfLiteInterpreterOptionsCreate() {
  return new TfLiteInterpreterOptions;
}
inline void TfLiteInterpreterOptionsDelete(TfLiteInterpreterOptions* options) { delete options; }
inline void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions* options, int32_t n) {
  options->threads = n;
}
inline TfLiteInterpreter* TfLiteInterpreterCreate(const TfLiteModel*,
                                                  const TfLiteInterpreterOptions*) {
  return new TfLiteInterpreter;
}
inline void TfLiteInterpreterDelete(TfLiteInterpreter* interpreter) { delete interpreter; }
inline TfLiteStatus TfLiteInterpreterAllocateTensors(TfLiteInterpreter*) { return kTfLiteOk; }
inline TfLiteTensor* TfLiteInterpreterGetInputTensor(const TfLiteInterpreter* i, int32_t) {
  return const_cast<TfLiteTensor*>(&i->input);
}
inline int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter*) { return 1; }
inline const TfLiteTensor* TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter* i, int32_t) {
  return &i->output;
}
inline TfLiteStatus TfLiteInterpreterInvoke(TfLiteInterpreter* i) {
  i->output = i->input;
  return kTfLiteOk;
}
inline TfLiteType TfLiteTensorType(const TfLiteTensor*) { return kTfLiteInt8; }
inline int32_t TfLiteTensorNumDims(const TfLiteTensor*) { return 4; }
inline int32_t TfLiteTensorDim(const TfLiteTensor*, int32_t axis) {
  const int32_t shape[] = {1, 2, 2, 3};
  return shape[axis];
}
inline size_t TfLiteTensorByteSize(const TfLiteTensor*) { return 12; }
inline void* TfLiteTensorData(const TfLiteTensor* t) { return const_cast<int8_t*>(t->data); }
inline TfLiteQuantizationParams TfLiteTensorQuantizationParams(const TfLiteTensor*) {
  return {1.0f / 64, -3};
}
inline TfLiteStatus TfLiteTensorCopyFromBuffer(TfLiteTensor* t, const void* from, size_t size) {
  std::memcpy(t->data, from, size);
  return kTfLiteOk;
}
