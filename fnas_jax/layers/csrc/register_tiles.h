// How a matrix is divided into tiles that are accumulated in registers.
#pragma once

#include <type_traits>

#include "vector.h"

namespace fnas {

// A tile, in vectors and rows
constexpr int kTileVecs = 3;
#if defined(__AVX512F__) || defined(__aarch64__)
template <int V>
constexpr int kTileRows = 8;  // 24 of 32 registers
#else
template <int V>
constexpr int kTileRows = 12 / V;  // 12 of 16 registers
#endif

// The last rows of a panel, fewer than kTileRows<V>.
template <int R, int V, class Body>
inline void last_rows(long rows, long i, long j, const Body& body) {
  if constexpr (R > 0) {
    if (rows - i == R)
      body(std::integral_constant<int, R>(), std::integral_constant<int, V>(), i, j);
    else
      last_rows<R - 1, V>(rows, i, j, body);
  }
}

// V vectors of columns
template <int V, class Body>
inline void in_panel(long rows, long j, const Body& body) {
  constexpr int R = kTileRows<V>;
  long i = 0;
  for (; i + R <= rows; i += R)
    body(std::integral_constant<int, R>(), std::integral_constant<int, V>(), i, j);
  last_rows<R - 1, V>(rows, i, j, body);
}

// Calls `body(R, V, i, j)`, R and V as constants, for the tiles of R rows and V vectors, whose
// first number is (i, j), of a matrix [rows, cols]; cols a multiple of kLanes.
template <class Body>
inline void in_tiles(long rows, long cols, const Body& body) {
  for (long j = 0; j < cols;) {
    const long left = (cols - j) / kLanes;
    // Four vectors are two and two: a single one would be limited by its loads.
    const long take = left == kTileVecs + 1 ? 2 : std::min<long>(left, kTileVecs);
    if (take == 3) in_panel<3>(rows, j, body);
    if (take == 2) in_panel<2>(rows, j, body);
    if (take == 1) in_panel<1>(rows, j, body);
    j += take * kLanes;
  }
}

}  // namespace fnas
