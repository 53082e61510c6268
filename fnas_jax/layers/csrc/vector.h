// Vectors of as many floats as a register holds, and rows of them.
//
// Tensors in here are dense: rows of pixels, each of `pitch(channels)` floats, a multiple of
// `kLanes` whose tail holds zeros, so that no loop over channels needs a remainder. In comments on
// shapes, c' is pitch(c).
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace fnas {

// Compilers keep vectors that are wider than a register in memory.
#if defined(__AVX512F__)
constexpr long kLanes = 16;
#elif defined(__AVX__)
constexpr long kLanes = 8;
#else
constexpr long kLanes = 4;  // SSE, NEON
#endif
typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

inline long pitch(long channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// from [rows, cols] with row stride `ld` -> to [rows, cols']
inline void pad_rows(const float* from, long ld, long rows, long cols, float* to) {
  const long p = pitch(cols);
  for (long r = 0; r < rows; ++r, from += ld, to += p) {
    std::memcpy(to, from, cols * sizeof(float));
    std::fill(to + cols, to + p, 0.0f);
  }
}

// from [rows, cols] -> to [rows, cols], each with its row stride; what lies between stays.
inline void copy_rows(const float* from, long ld_from, long rows, long cols, float* to,
                      long ld_to) {
  if (ld_from == cols && ld_to == cols) cols *= rows, rows = 1;
  for (long r = 0; r < rows; ++r, from += ld_from, to += ld_to)
    std::memcpy(to, from, cols * sizeof(float));
}

// The reverse: from [rows, cols'] -> to [rows, cols] with row stride `ld`; what lies between stays.
inline void unpad_rows(const float* from, long rows, long cols, float* to, long ld) {
  copy_rows(from, pitch(cols), rows, cols, to, ld);
}

// Adds from [rows, cols] to `to` [rows, cols], each with its row stride.
inline void add_rows(const float* from, long ld_from, long rows, long cols, float* to, long ld_to) {
  for (long r = 0; r < rows; ++r, from += ld_from, to += ld_to)
    for (long c = 0; c < cols; ++c) to[c] += from[c];
}

// Memory to work in. Grows and never shrinks: the layers of a network share it, one after another.
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
