// Vectors of as many floats as a register holds, and rows of them.
//
// Tensors in here are dense: rows of pixels, each of `pitch(channels)` numbers, a multiple of
// `kLanes` whose tail holds zeros, so that no loop over channels needs a remainder. In comments on
// shapes, c' is pitch(c).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

#if defined(__AVX__)
#include <immintrin.h>
#endif

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

// a > b ? a : b, and a < b ? a : b: b where one of them is NaN
#if defined(__AVX512F__)
inline Vec larger(Vec a, Vec b) { return (Vec)_mm512_max_ps((__m512)a, (__m512)b); }
inline Vec smaller(Vec a, Vec b) { return (Vec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX__)
inline Vec larger(Vec a, Vec b) { return (Vec)_mm256_max_ps((__m256)a, (__m256)b); }
inline Vec smaller(Vec a, Vec b) { return (Vec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline Vec smaller(Vec a, Vec b) { return a < b ? a : b; }
#endif

// A bfloat16: the upper half of a float32. Memory holds them; but for products, arithmetic is in
// float32.
typedef uint16_t Short;
typedef Short ShortVec __attribute__((vector_size(kLanes * sizeof(Short))));
typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(float))));

inline Bits load_bits(const Short* p) {
#if defined(__AVX512F__)  // of the code below compilers make two halves
  return (Bits)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
#else
  ShortVec v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Bits);
#endif
}

inline Vec load(const Short* p) { return (Vec)(load_bits(p) << 16); }

// Rounded to the nearest, of two the even one; NaN stays NaN.
inline ShortVec shortened(Vec v) {
#if defined(__AVX512BF16__)
  return (ShortVec)_mm512_cvtneps_pbh((__m512)v);
#else
  const Bits bits = (Bits)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return __builtin_convertvector(v == v ? rounded : bits >> 16 | 0x40, ShortVec);
#endif
}

inline void store(Short* p, Vec v) {
  const ShortVec s = shortened(v);
  std::memcpy(p, &s, sizeof s);
}

inline long pitch(long channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// The first n < kLanes numbers of a vector: those behind them are 0, or stay.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
inline __mmask16 first(long n) { return __mmask16((1u << n) - 1); }

inline Vec load_first(const float* p, long n) { return (Vec)_mm512_maskz_loadu_ps(first(n), p); }

inline Vec load_first(const Short* p, long n) {
  const __m256i v = _mm256_maskz_loadu_epi16(first(n), p);
  return (Vec)((Bits)_mm512_cvtepu16_epi32(v) << 16);
}

inline void store_first(float* p, long n, Vec v) { _mm512_mask_storeu_ps(p, first(n), (__m512)v); }

inline void store_first(Short* p, long n, Vec v) {
  _mm256_mask_storeu_epi16(p, first(n), (__m256i)shortened(v));
}
#else
#if defined(__AVX__) && !defined(__AVX512F__)
// n times -1, then zeros
inline __m256i first(long n) {
  static const int32_t both[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(both + kLanes - n));
}

inline Vec load_first(const float* p, long n) { return (Vec)_mm256_maskload_ps(p, first(n)); }

inline void store_first(float* p, long n, Vec v) { _mm256_maskstore_ps(p, first(n), (__m256)v); }
#endif

template <class T>
inline Vec load_first(const T* p, long n) {
  T whole[kLanes] = {};
  for (long i = 0; i < n; ++i) whole[i] = p[i];
  return load(whole);
}

template <class T>
inline void store_first(T* p, long n, Vec v) {
  T whole[kLanes];
  store(whole, v);
  for (long i = 0; i < n; ++i) p[i] = whole[i];
}
#endif

// from [n] -> to [n]. Rows are short: a call of the library's function takes longer than most.
template <class From, class To>
inline void copy_row(const From* from, long n, To* to) {
  long i = 0;
  if constexpr (std::is_same_v<From, Short> && std::is_same_v<To, Short>)
    for (; i + kLanes <= n; i += kLanes) std::memcpy(to + i, from + i, kLanes * sizeof(Short));
  else
    for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i));
  if (i < n) store_first(to + i, n - i, load_first(from + i, n - i));
}

// from [rows, cols] with row stride `ld` -> to [rows, cols']
inline void pad_rows(const float* from, long ld, long rows, long cols, float* to) {
  const long p = pitch(cols);
  for (long r = 0; r < rows; ++r, from += ld, to += p) {
    if (p > cols) store(to + p - kLanes, Vec{});
    copy_row(from, cols, to);
  }
}

// from [rows, cols] -> to [rows, cols], each with its row stride; what lies between stays.
template <class From, class To>
inline void copy_rows(const From* from, long ld_from, long rows, long cols, To* to, long ld_to) {
  if (ld_from == cols && ld_to == cols) cols *= rows, rows = 1;
  for (long r = 0; r < rows; ++r, from += ld_from, to += ld_to) copy_row(from, cols, to);
}

// The reverse of `pad_rows`: from [rows, cols'] -> to [rows, cols] with row stride `ld`; what lies
// between stays.
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

  template <class T>
  T* of(long count) {
    return reinterpret_cast<T*>(get((count * sizeof(T) + sizeof(float) - 1) / sizeof(float)));
  }

  template <class T>
  T* zeros_of(long count) {
    T* data = of<T>(count);
    std::memset(data, 0, count * sizeof(T));
    return data;
  }

  float* zeros(long size) { return zeros_of<float>(size); }

 private:
  float* data_ = nullptr;
  long size_ = 0;
};

}  // namespace fnas
