// Matrix product C = A B or C += A B in registers, for matrices with few columns.
//
// A is read entry by entry with any strides, so that the same code serves A and its transpose;
// B and C are dense rows of whole vectors.
#pragma once

#include "register_tiles.h"

namespace fnas {

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

inline void product(long rows, long cols, long depth, Matrix a, const float* b, float* c,
                    bool add) {
  in_tiles(rows, cols, [&](auto r, auto v, long i, long j) {
    Matrix below = a;
    below.data += i * a.row;
    tile<r.value, v.value>(depth, below, b + j, c + i * cols + j, cols, add);
  });
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
