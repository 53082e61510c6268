// Pairs of bfloat16 numbers, which CPUs with AVX512-BF16 multiply and add two by two, to a float32:
// up to twice as many multiply-adds as of float32 numbers. Others do the same in float32.
//
// A pair is two neighbours along the depth of a product, which is padded with zeros to an even one:
// of A, two numbers of a row; of B, two rows interleaved, [depth / 2, cols, 2].
#pragma once

#include "vector.h"

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

inline Bits load_pairs(const Short* p) {
  Bits v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// One pair, as often as a vector has room for it
inline Bits spread_pair(const Short* p) {
  uint32_t pair;
  std::memcpy(&pair, p, sizeof pair);
  return Bits{} + pair;
}

inline Vec add_pairs(Vec sum, Bits a, Bits b) {
#if defined(__AVX512BF16__)
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  sum += (Vec)(a << 16) * (Vec)(b << 16);
  return sum + (Vec)(a & 0xffff0000u) * (Vec)(b & 0xffff0000u);
#endif
}

}  // namespace fnas
