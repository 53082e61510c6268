// Matrix products of bfloat16 numbers, summed in float32, for CPUs that multiply and add them two
// by two (AVX512-BF16): up to twice as many multiply-adds as of float32 numbers. Others do the same
// in float32.
//
// A pair is two neighbours along the depth of a product, which is padded with zeros to an even one:
// of A, two numbers of a row; of B, two rows interleaved, [depth / 2, cols, 2].
#pragma once

#include "register_tiles.h"

namespace fnas {

// `interleave` writes fewer numbers than that beyond the end.
constexpr long kPairSlack = 2 * kLanes;

inline long pairs_of(long depth) { return (depth + 1) / 2; }

// from [rows, ld] of `cols` columns -> [pairs_of(rows), cols, 2]; reads fewer than kLanes
// numbers beyond `from`
inline void interleave(const Short* from, long ld, long rows, long cols, Short* to) {
  for (long r = 0; r < rows; r += 2, from += 2 * ld, to += 2 * cols)
    for (long c = 0; c < cols; c += kLanes) {
      const Bits second = r + 1 < rows ? load_bits(from + ld + c) << 16 : Bits{};
      const Bits both = load_bits(from + c) | second;
      std::memcpy(to + 2 * c, &both, sizeof both);
    }
}

// A, whose columns come in runs as those of `Matrix` in gemm.h
struct PairMatrix {
  const Short* data;
  long row, pair;           // strides in numbers
  long runs = 1, jump = 0;  // from the start of a run to that of the next
};

inline Bits load_pairs(const Short* p) {
  Bits v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline Vec add_pairs(Vec sum, Bits a, Bits b) {
#if defined(__AVX512BF16__)
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  sum += (Vec)(a << 16) * (Vec)(b << 16);
  return sum + (Vec)(a & 0xffff0000u) * (Vec)(b & 0xffff0000u);
#endif
}

// pairs: of a run; ld: columns of B and row stride of C
template <int R, int V>
inline void pair_tile(long pairs, PairMatrix a, const Short* b, float* c, long ld, bool add) {
  Vec sum[R][V];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) sum[i][j] = add ? load(c + i * ld + j * kLanes) : Vec{};
  for (long run = 0; run < a.runs; ++run, a.data += a.jump) {
    const Short* at = a.data;
    for (long k = 0; k < pairs; ++k, at += a.pair, b += 2 * ld) {
      Bits right[V];
      for (int j = 0; j < V; ++j) right[j] = load_pairs(b + 2 * j * kLanes);
      for (int i = 0; i < R; ++i) {
        uint32_t both;
        std::memcpy(&both, at + i * a.row, sizeof both);
        const Bits left = Bits{} + both;
        for (int j = 0; j < V; ++j) sum[i][j] = add_pairs(sum[i][j], left, right[j]);
      }
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) store(c + i * ld + j * kLanes, sum[i][j]);
}

// C [rows, cols] = A B or C += A B; `pairs` of each run of A, b [runs * pairs, cols, 2], cols a
// multiple of kLanes
inline void pair_gemm(long rows, long cols, long pairs, PairMatrix a, const Short* b, float* c,
                      bool add) {
  in_tiles(rows, cols, [&](auto r, auto v, long i, long j) {
    PairMatrix below = a;
    below.data += i * a.row;
    pair_tile<r.value, v.value>(pairs, below, b + 2 * j, c + i * cols + j, cols, add);
  });
}

}  // namespace fnas
