// Matrix product C = A B or C += A B in registers, for matrices with few columns.
//
// A is read step by step with any strides, so that the same code serves A and its transpose; B and
// C are dense rows of whole vectors. Numbers are floats, or shorts in pairs (pairs.h); sums are
// floats.
#pragma once

#include "pairs.h"
#include "register_tiles.h"

namespace fnas {

// Its columns come in `runs` of equal length, which may stand anywhere: the pixels of an image that
// a kernel covers are read where they are.
template <class T>
struct Matrix {
  const T* data;
  long row, col;            // strides in numbers; of bfloat16 numbers, `col` is from pair to pair
  long runs = 1, jump = 0;  // from the start of a run to that of the next
};

// A step of the depth is a float or a pair of shorts.
template <class T>
constexpr long kStep = std::is_same_v<T, Short> ? 2 : 1;

inline Vec load_step(const float* p) { return load(p); }
inline Bits load_step(const Short* p) { return load_pairs(p); }

inline float step_of(const float* p) { return *p; }
inline Bits step_of(const Short* p) { return spread_pair(p); }

inline Vec add_step(Vec sum, float a, Vec b) { return sum + a * b; }
inline Vec add_step(Vec sum, Bits a, Bits b) { return add_pairs(sum, a, b); }

// ld: columns of B and C; steps: of A in all
template <int R, int V, class T>
inline void tile(long steps, Matrix<T> a, const T* b, float* c, long ld, bool add) {
  Vec sum[R][V];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) sum[i][j] = add ? load(c + i * ld + j * kLanes) : Vec{};
  const long length = steps / a.runs;
  for (long run = 0; run < a.runs; ++run, a.data += a.jump) {
    const T* at = a.data;
    for (long k = 0; k < length; ++k, at += a.col, b += kStep<T> * ld) {
      decltype(load_step(b)) right[V];
      for (int j = 0; j < V; ++j) right[j] = load_step(b + kStep<T> * j * kLanes);
      for (int i = 0; i < R; ++i) {
        const auto left = step_of(at + i * a.row);
        for (int j = 0; j < V; ++j) sum[i][j] = add_step(sum[i][j], left, right[j]);
      }
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) store(c + i * ld + j * kLanes, sum[i][j]);
}

template <class T>
inline void product(long rows, long cols, long steps, Matrix<T> a, const T* b, float* c, bool add) {
  in_tiles(rows, cols, [&](auto r, auto v, long i, long j) {
    Matrix<T> below = a;
    below.data += i * a.row;
    tile<r.value, v.value>(steps, below, b + kStep<T> * j, c + i * cols + j, cols, add);
  });
}

// C [rows, cols] = A [rows, steps] B [steps, cols]; cols a multiple of kLanes.
template <class T>
inline void gemm(long rows, long cols, long steps, Matrix<T> a, const T* b, float* c) {
  product(rows, cols, steps, a, b, c, false);
}

// C += A B
template <class T>
inline void add_gemm(long rows, long cols, long steps, Matrix<T> a, const T* b, float* c) {
  product(rows, cols, steps, a, b, c, true);
}

// b [rows, cols] with row stride `ld` -> out [cols, rows']
inline void transpose(const float* b, long ld, long rows, long cols, float* out) {
  const long p = pitch(rows);
  std::memset(out, 0, cols * p * sizeof(float));
  for (long i = 0; i < rows; ++i)
    for (long j = 0; j < cols; ++j) out[j * p + i] = b[i * ld + j];
}

}  // namespace fnas
