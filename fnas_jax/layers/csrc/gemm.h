// Matrix product C = A B or C += A B in registers, for matrices with few columns.
//
// A is read entry by entry with any strides, so that the same code serves A and its transpose;
// B and C are dense rows of whole vectors.
#pragma once

#include "vector.h"

namespace fnas {

// A tile of C, in vectors and rows, that is accumulated in registers.
constexpr int kTileVecs = 3;
#if defined(__AVX512F__) || defined(__aarch64__)
template <int V>
constexpr int kTileRows = 8;  // 24 of 32 registers
#else
template <int V>
constexpr int kTileRows = 12 / V;  // 12 of 16 registers
#endif

// Its columns come in `runs` of equal length, which may stand anywhere: the pixels of an image that
// a kernel covers are read where they are.
struct Matrix {
  const float* data;
  long row, col;            // strides
  long runs = 1, jump = 0;  // from the start of a run to that of the next
};

// ld: row stride of B and C; depth: columns of A in all
template <int R, int V>
inline void tile(long depth, Matrix a, const float* b, float* c, long ld, bool add) {
  Vec sum[R][V];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) sum[i][j] = add ? load(c + i * ld + j * kLanes) : Vec{};
  const long length = depth / a.runs;
  for (long run = 0; run < a.runs; ++run, a.data += a.jump) {
    const float* at = a.data;
    for (long k = 0; k < length; ++k, at += a.col, b += ld) {
      Vec right[V];
      for (int j = 0; j < V; ++j) right[j] = load(b + j * kLanes);
      for (int i = 0; i < R; ++i) {
        const float left = at[i * a.row];
        for (int j = 0; j < V; ++j) sum[i][j] += left * right[j];
      }
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) store(c + i * ld + j * kLanes, sum[i][j]);
}

// The last rows of a panel, fewer than kTileRows<V>.
template <int R, int V>
inline void last_rows(long rows, long depth, Matrix a, const float* b, float* c, long ld,
                      bool add) {
  if constexpr (R > 0) {
    if (rows == R) return tile<R, V>(depth, a, b, c, ld, add);
    last_rows<R - 1, V>(rows, depth, a, b, c, ld, add);
  }
}

// V vectors of columns of C
template <int V>
inline void panel(long rows, long depth, Matrix a, const float* b, float* c, long ld, bool add) {
  auto below = [&](long i) {
    Matrix rest = a;
    rest.data += i * a.row;
    return rest;
  };
  long i = 0;
  for (; i + kTileRows<V> <= rows; i += kTileRows<V>)
    tile<kTileRows<V>, V>(depth, below(i), b, c + i * ld, ld, add);
  last_rows<kTileRows<V> - 1, V>(rows - i, depth, below(i), b, c + i * ld, ld, add);
}

inline void product(long rows, long cols, long depth, Matrix a, const float* b, float* c,
                    bool add) {
  for (long j = 0; j < cols;) {
    const long left = (cols - j) / kLanes;
    // Four vectors are two and two: a single one would be limited by its loads.
    const long take = left == kTileVecs + 1 ? 2 : std::min<long>(left, kTileVecs);
    if (take == 3) panel<3>(rows, depth, a, b + j, c + j, cols, add);
    if (take == 2) panel<2>(rows, depth, a, b + j, c + j, cols, add);
    if (take == 1) panel<1>(rows, depth, a, b + j, c + j, cols, add);
    j += take * kLanes;
  }
}

// C [rows, cols] = A [rows, depth] B [depth, cols]; cols a multiple of kLanes.
inline void gemm(long rows, long cols, long depth, Matrix a, const float* b, float* c) {
  product(rows, cols, depth, a, b, c, false);
}

// C += A B
inline void add_gemm(long rows, long cols, long depth, Matrix a, const float* b, float* c) {
  product(rows, cols, depth, a, b, c, true);
}

// b [rows, cols] with row stride `ld` -> out [cols, rows']
inline void transpose(const float* b, long ld, long rows, long cols, float* out) {
  const long p = pitch(rows);
  std::memset(out, 0, cols * p * sizeof(float));
  for (long i = 0; i < rows; ++i)
    for (long j = 0; j < cols; ++j) out[j * p + i] = b[i * ld + j];
}

}  // namespace fnas
