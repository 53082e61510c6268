// Vectors of 16 floats, and memory to work in.
//
// Tensors in here are dense: rows of pixels, each of `pitch(channels)` floats, a multiple of 16
// whose tail holds zeros, so that no loop over channels needs a remainder.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>

namespace fnas {

constexpr long kLanes = 16;
typedef float Vec __attribute__((vector_size(64)));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

inline long pitch(long channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// Grows and never shrinks: the layers of a network share it, one after another.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  float* get(long size) {
    if (size > size_) {
      std::free(data_);
      size_ = 0;
      const size_t bytes = (size * sizeof(float) + 63) / 64 * 64;
      data_ = static_cast<float*>(std::aligned_alloc(64, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = size;
    }
    return data_;
  }

  float* zeros(long size) {
    float* data = get(size);
    std::memset(data, 0, size * sizeof(float));
    return data;
  }

 private:
  float* data_ = nullptr;
  long size_ = 0;
};

}  // namespace fnas
