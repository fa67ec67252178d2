// The part of ONNX Runtime's C++ API that programs of a run use, for a model that gives its input
// back: float32, (free, 3, 2, 2).
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };
namespace Ort {
struct Env {};
struct SessionOptions { void SetIntraOpNumThreads(int) {} };
struct AllocatorWithDefaultOptions {};
struct RunOptions { explicit RunOptions(std::nullptr_t) {} };
struct MemoryInfo {
  static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType) { return {}; }
};
struct ShapeInfo {
  std::vector<int64_t> shape;
  std::vector<int64_t> GetShape() const { return shape; }
  size_t GetElementCount() const {
    size_t count = 1;
    for (int64_t size : shape) count *= size;
    return count;
  }
};
struct TypeInfo {
  ShapeInfo GetTensorTypeAndShapeInfo() const { return {{-1, 3, 2, 2}}; }
};
struct Value {
  float* data;
  std::vector<int64_t> shape;
  template <typename T>
  static Value CreateTensor(const MemoryInfo&, T* data, size_t, const int64_t* shape, size_t n) {
    return {data, {shape, shape + n}};
  }
  template <typename T>
  const T* GetTensorData() const { return data; }
  ShapeInfo GetTensorTypeAndShapeInfo() const { return {shape}; }
};
using AllocatedStringPtr = std::unique_ptr<char, void (*)(void*)>;
struct Session {
  explicit Session(std::nullptr_t) {}
  Session(Env&, const char* path, const SessionOptions&) {
    if (std::string(path) != "files/net.onnx") throw std::runtime_error("no such file");
  }
  TypeInfo GetInputTypeInfo(size_t) const { return {}; }
  size_t GetOutputCount() const { return 1; }
  AllocatedStringPtr GetInputNameAllocated(size_t, AllocatorWithDefaultOptions&) const {
    return {new char[2]{'x', 0}, [](void* p) { delete[] static_cast<char*>(p); }};
  }
  AllocatedStringPtr GetOutputNameAllocated(size_t, AllocatorWithDefaultOptions&) const {
    return {new char[2]{'y', 0}, [](void* p) { delete[] static_cast<char*>(p); }};
  }
  std::vector<Value> Run(const RunOptions&, const char* const*, const Value* values, size_t n,
                         const char* const*, size_t) {
    return {values, values + n};
  }
};
}  // namespace Ort
