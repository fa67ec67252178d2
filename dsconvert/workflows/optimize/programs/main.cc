// Runs $name ($what). Made by dsconvert; change what you like.
//
//     $build
//     ./run pixels.bin    # 8-bit values (height, width, channels), as they are stored
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

$include

namespace {

constexpr char kModel[] = "files/$name";
constexpr float kScale = ${scale}f;  // stored values are multiplied by this
constexpr float kMean[] = {$mean};  // one number, or one per channel
constexpr float kStd[] = {$std};    // one number, or one per channel

using Shape = std::vector<int64_t>;

// Tells whether images are (1, channels, height, width).
bool ChannelsFirst(const Shape& shape) {
  auto few = [](int64_t size) { return size == 1 || size == 3 || size == 4; };
  return shape.size() == 4 && few(shape[1]) && !few(shape[3]);
}

int64_t Count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

// Preprocesses stored values (height, width, channels) as it was done for this model.
std::vector<float> Prepare(const std::vector<uint8_t>& stored, const Shape& shape) {
  const int64_t count = Count(shape);
  if (static_cast<int64_t>(stored.size()) != count)
    throw std::runtime_error("expected " + std::to_string(count) + " values, got " +
                             std::to_string(stored.size()));
  const bool first = ChannelsFirst(shape);
  const int64_t channels = shape.size() < 2 ? 1 : first ? shape[1] : shape.back();
  const int64_t places = count / channels;
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = i / channels, channel = i % channels;
    const float value = (stored[i] * kScale - kMean[channel % std::size(kMean)]) /
                        kStd[channel % std::size(kStd)];
    values[first ? channel * places + place : i] = value;
  }
  return values;
}

}  // namespace

$model

int main(int argc, char** argv) {
  try {
    Model model(kModel);
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      if (!file) throw std::runtime_error(std::string("cannot read ") + argv[i]);
      const std::vector<uint8_t> stored((std::istreambuf_iterator<char>(file)), {});
      const auto outputs = model.Run(stored);
      for (size_t n = 0; n < outputs.size(); ++n) {
        std::printf("%s: output %zu:", argv[i], n);
        for (float value : outputs[n]) std::printf(" %.6g", value);
        std::printf("\n");
      }
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
