// The roof of a core: how many multiply-adds a second it does with numbers that are in registers.
#include <chrono>

#include "pairs.h"
#include "tiles.h"

namespace fnas {

namespace {

constexpr int kChains =
    12;  // sums that wait for nothing but themselves; more than a unit has steps
constexpr long kRounds = 1L << 22;

// Compilers may know neither what factors are nor that sums are not read.
template <class V>
inline void unknown(V& v) {
  asm volatile("" : "+m"(v));
}

// Multiply-adds a second of `round`, each of which does `count`, after one that warms up
template <class Round>
double speed(double count, const Round& round) {
  double seconds = 0;
  for (int run = 0; run < 2; ++run) {
    const auto start = std::chrono::steady_clock::now();
    round();
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return count / seconds;
}

double by_floats() {
  return speed(double(kRounds) * kChains * kLanes, [] {
    Vec a = Vec{} + 1e-3f, b = Vec{} + 1.0f, sums[kChains] = {};
    unknown(a), unknown(b);
    for (long i = 0; i < kRounds; ++i)
      for (int k = 0; k < kChains; ++k) sums[k] += a * b;
    for (Vec& sum : sums) unknown(sum);
  });
}

double by_pairs() {
  return speed(double(kRounds) * kChains * 2 * kLanes, [] {
    Bits a = Bits{} + 0x3f803f80u, b = a;
    Vec sums[kChains] = {};
    unknown(a), unknown(b);
    for (long i = 0; i < kRounds; ++i)
      for (int k = 0; k < kChains; ++k) sums[k] = add_pairs(sums[k], a, b);
    for (Vec& sum : sums) unknown(sum);
  });
}

double by_tiles() {
#ifdef FNAS_TILES
  if (!tiles_available()) return 0;
  return speed(double(kRounds) * 4 * kTile * kBlock, [] {
    use_tiles(kTile);
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
