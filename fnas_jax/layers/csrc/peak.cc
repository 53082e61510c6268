// The roof of a core: how many multiply-adds a second it does with numbers that are in registers.
#include <chrono>

#include "pairs.h"
#include "tiles.h"

namespace fnas {

namespace {

// Sums that wait for nothing but themselves, more than a unit has steps
constexpr int kChains = 12;
constexpr long kRounds = 1L << 22;
constexpr int kRuns = 5;

// Compilers may know neither what factors are nor that sums are not read.
template <class V>
inline void unknown(V& v) {
  asm volatile("" : "+m"(v));
}

// Multiply-adds a second of `round`, which does `count`: of the fastest run, as others are
// disturbed
template <class Round>
double speed(double count, const Round& round) {
  double least = 1e9;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    round();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    least = std::min(least, seconds.count());
  }
  return count / least;
}

double by_floats() {
  return speed(double(kRounds) * kChains * kLanes, [] {
    Vec a = Vec{} + 0.5f, b = Vec{} + 1.0f, sums[kChains] = {};
    unknown(a), unknown(b);
    for (long i = 0; i < kRounds; ++i)
      for (int k = 0; k < kChains; ++k) sums[k] = sums[k] * a + b;
    for (Vec& sum : sums) unknown(sum);
  });
}

double by_pairs() {
  return speed(double(kRounds) * kChains * 2 * kLanes, [] {
    Bits a = Bits{} + 0x3f803f80u, b = a;
    Vec sums[kChains] = {};
    unknown(a), unknown(b);
    for (long i = 0; i < kRounds; ++i) {
#if !defined(__AVX512BF16__)
      unknown(a);  // what the portable code makes of it would be made once
#endif
      for (int k = 0; k < kChains; ++k) sums[k] = add_pairs(sums[k], a, b);
    }
    for (Vec& sum : sums) unknown(sum);
  });
}

double by_tiles() {
#ifdef FNAS_TILES
  if (!tiles_available()) return 0;
  return speed(double(kRounds) * 4 * kTile * kBlock, [] {
    use_tiles(kTile);  // of zeros, which take as long as others
    for (long i = 0; i < kRounds; ++i) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    release_tiles();
  });
#else
  return 0;
#endif
}

}  // namespace

}  // namespace fnas

// Of float32 numbers, or of bfloat16 numbers by the fastest of the ways that kernels have
extern "C" double FnasPeak(int64_t is_short) {
  return is_short ? std::max(fnas::by_pairs(), fnas::by_tiles()) : fnas::by_floats();
}
