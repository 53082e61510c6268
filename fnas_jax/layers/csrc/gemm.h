// Matrix product C (+)= A B in registers, for matrices with few columns.
//
// A is read entry by entry with any strides, so that the same code serves A and its transpose;
// B and C are rows of whole vectors.
#pragma once

#include "vector.h"

namespace fnas {

#ifdef __AVX512F__
constexpr int kRows = 8, kVecs = 3;  // 24 of 32 registers accumulate
#else
constexpr int kRows = 6, kVecs = 1;  // 12 of 16 registers of half the width
#endif

struct Matrix {
  const float* data;
  long row, col;  // strides
};

template <int R, int V>
inline void tile(long depth, const float* a, long row, long col, const float* b, long ldb, float* c,
                 long ldc, bool add) {
  Vec sum[R][V];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) sum[i][j] = add ? load(c + i * ldc + j * kLanes) : Vec{};
  for (long k = 0; k < depth; ++k, a += col, b += ldb) {
    Vec right[V];
    for (int j = 0; j < V; ++j) right[j] = load(b + j * kLanes);
    for (int i = 0; i < R; ++i) {
      const float left = a[i * row];
      for (int j = 0; j < V; ++j) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) store(c + i * ldc + j * kLanes, sum[i][j]);
}

// The last rows of a panel, fewer than kRows.
template <int R, int V>
inline void last_rows(long rows, long depth, const float* a, long row, long col, const float* b,
                      long ldb, float* c, long ldc, bool add) {
  if constexpr (R > 0) {
    if (rows == R) return tile<R, V>(depth, a, row, col, b, ldb, c, ldc, add);
    last_rows<R - 1, V>(rows, depth, a, row, col, b, ldb, c, ldc, add);
  }
}

template <int V>
inline void panel(long rows, long depth, Matrix a, const float* b, long ldb, float* c, long ldc,
                  bool add) {
  long i = 0;
  for (; i + kRows <= rows; i += kRows)
    tile<kRows, V>(depth, a.data + i * a.row, a.row, a.col, b, ldb, c + i * ldc, ldc, add);
  last_rows<kRows - 1, V>(rows - i, depth, a.data + i * a.row, a.row, a.col, b, ldb, c + i * ldc,
                          ldc, add);
}

// C [rows, cols] (+)= A [rows, depth] B [depth, cols]; cols a multiple of kLanes.
inline void gemm(long rows, long cols, long depth, Matrix a, const float* b, long ldb, float* c,
                 long ldc, bool add) {
  for (long j = 0; j < cols;) {
    const long left = (cols - j) / kLanes;
    // Four vectors are two and two: a single one would be limited by its loads.
    const long take = kVecs == 1 ? 1 : left == 4 ? 2 : left < 3 ? left : 3;
    if constexpr (kVecs == 3) {
      if (take == 3) panel<3>(rows, depth, a, b + j, ldb, c + j, ldc, add);
      if (take == 2) panel<2>(rows, depth, a, b + j, ldb, c + j, ldc, add);
    }
    if (take == 1) panel<1>(rows, depth, a, b + j, ldb, c + j, ldc, add);
    j += take * kLanes;
  }
}

// `b` [rows, cols] with row stride `ldb` into `out` [cols, pitch(rows)], transposed.
inline void transpose(const float* b, long ldb, long rows, long cols, float* out) {
  const long p = pitch(rows);
  std::memset(out, 0, cols * p * sizeof(float));
  for (long i = 0; i < rows; ++i)
    for (long j = 0; j < cols; ++j) out[j * p + i] = b[i * ldb + j];
}

}  // namespace fnas
