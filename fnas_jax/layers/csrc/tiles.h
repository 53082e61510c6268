// Matrix products of bfloat16 numbers, summed in float32, by the tile registers of CPUs that have
// them (Intel AMX): eight times as many multiply-adds as vectors of float32 numbers do.
//
// A tile is 16 rows of 64 bytes. A [h, 32] times B [32, 16] is added to C [h, 16], where B holds
// pairs of rows interleaved: [16, 16, 2]. What is narrower than a tile is padded with zeros in B,
// so that it does not matter what A has there; but it has to be a number, which is why buffers end
// with `kSlack` zeros (products.h).
#pragma once

#include <cstdint>

#include "gemm.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define FNAS_TILES 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fnas {

constexpr long kTile = 16;               // rows and columns of C
constexpr long kDepth = 32;              // of a product of two tiles
constexpr long kBlock = kTile * kDepth;  // numbers of A or B

inline long tiles_of(long size, long tile) { return (size + tile - 1) / tile; }

#ifdef FNAS_TILES

// Asks the system for the registers, once a process.
inline bool tiles_available() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  static const bool allowed = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return allowed;
}

// Intrinsics of tiles do not tell compilers that they read memory: what was written has to be
// there.
inline void settle() { asm volatile("" ::: "memory"); }

// How many rows A and C have on this thread; 0: its registers are not in use.
inline thread_local long tile_rows = 0;

inline void use_tiles(long rows) {
  if (tile_rows == rows) return;
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } config = {1};
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = 64;
    config.rows[i] = uint8_t(i < 6 ? rows : kTile);  // 6 and 7 are B
  }
  settle();
  _tile_loadconfig(&config);
  tile_rows = rows;
}

// Threads that hold registers are slower to switch.
inline void release_tiles() {
  if (tile_rows) _tile_release();
  tile_rows = 0;
}

// Up to 32 `rows` [rows, ld] of `cols` <= 16 columns -> a tile of B
inline void pair_rows(const Short* from, long ld, long rows, long cols, __m512i* pairs) {
  const __mmask16 there = cols >= kTile ? 0xffff : __mmask16((1u << cols) - 1);
  for (long r = 0; r < kTile; ++r) {
    const __mmask16 first = 2 * r < rows ? there : 0, second = 2 * r + 1 < rows ? there : 0;
    const __m256i a = _mm256_maskz_loadu_epi16(first, from + 2 * r * ld);
    const __m256i b = _mm256_maskz_loadu_epi16(second, from + (2 * r + 1) * ld);
    pairs[r] =
        _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
  }
}

// [16, 16] of 32 bits each: of rows in pairs, the columns
inline void transpose_pairs(__m512i* rows) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    rows[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    rows[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// M x N tiles of C, all of their depth. Tiles 0 to 3 are C, 4 and 5 A, 6 and 7 B.
template <int M, int N>
inline void tile_block(Matrix<Short> a, long a_next, long length, const Short* b, long b_next,
                       float* c, long c_next, long ld) {
  const long chunks = tiles_of(length, kDepth), row = a.row * sizeof(Short);
  _tile_zero(0);
  if constexpr (N > 1) _tile_zero(1);
  if constexpr (M > 1) _tile_zero(2);
  if constexpr (M > 1 && N > 1) _tile_zero(3);
  for (long run = 0; run < a.runs; ++run, a.data += a.jump)
    for (long k = 0; k < chunks; ++k, b += kBlock) {
      const Short* at = a.data + k * kDepth;
      _tile_loadd(4, at, row);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (M > 1) {
        _tile_loadd(5, at + a_next, row);
        _tile_dpbf16ps(2, 5, 6);
      }
      if constexpr (N > 1) {
        _tile_loadd(7, b + b_next, 64);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (M > 1) _tile_dpbf16ps(3, 5, 7);
      }
    }
  const long bytes = ld * sizeof(float);
  _tile_stored(0, c, bytes);
  if constexpr (N > 1) _tile_stored(1, c + kTile, bytes);
  if constexpr (M > 1) _tile_stored(2, c + c_next, bytes);
  if constexpr (M > 1 && N > 1) _tile_stored(3, c + c_next + kTile, bytes);
}

// C [rows, cols] = A [rows, runs * length] B; cols a multiple of `kTile`, b of `tile_weights`.
inline void tile_gemm(long rows, long cols, long length, Matrix<Short> a, const Short* b,
                      float* c) {
  const long parts = tiles_of(rows, kTile), h = tiles_of(rows, parts), columns = cols / kTile;
  const long b_next = a.runs * tiles_of(length, kDepth) * kBlock;
  use_tiles(h);
  settle();
  // Parts are equally high, so that the last one may do some rows again.
  auto start = [&](long part) { return std::min(part * h, rows - h); };
  for (long m = 0; m < parts; m += 2) {
    const long r = start(m), below = m + 1 < parts ? start(m + 1) - r : 0;
    Matrix<Short> from = a;
    from.data += r * a.row;
    for (long n = 0; n < columns; n += 2) {
      const Short* right = b + n * b_next;
      float* to = c + r * cols + n * kTile;
      const long a_next = below * a.row, c_next = below * cols;
      if (below && n + 1 < columns)
        tile_block<2, 2>(from, a_next, length, right, b_next, to, c_next, cols);
      else if (below)
        tile_block<2, 1>(from, a_next, length, right, b_next, to, c_next, cols);
      else if (n + 1 < columns)
        tile_block<1, 2>(from, a_next, length, right, b_next, to, c_next, cols);
      else
        tile_block<1, 1>(from, a_next, length, right, b_next, to, c_next, cols);
    }
  }
}

// b [runs * length, cols] -> tiles of B, one column of them after another
inline void tile_weights(const Short* b, long runs, long length, long cols, Short* to) {
  __m512i pairs[kTile];
  for (long n = 0; n < cols; n += kTile)
    for (long run = 0; run < runs; ++run)
      for (long k = 0; k < length; k += kDepth, to += kBlock) {
        const Short* from = b + (run * length + k) * cols + n;
        pair_rows(from, cols, std::min(kDepth, length - k), kTile, pairs);
        std::memcpy(to, pairs, sizeof pairs);
      }
}

// a [rows, ld] of `cols` columns -> [cols in tiles][rows in tiles] tiles of its transpose, or of
// itself as B
template <bool Transposed>
inline void tile_rows_of(const Short* a, long ld, long rows, long cols, Short* to) {
  __m512i pairs[kTile];
  for (long n = 0; n < cols; n += kTile)
    for (long r = 0; r < rows; r += kDepth, to += kBlock) {
      pair_rows(a + r * ld + n, ld, rows - r, cols - n, pairs);
      if constexpr (Transposed) transpose_pairs(pairs);
      std::memcpy(to, pairs, sizeof pairs);
    }
}

// C [rows', cols] += A B of tiles of `tile_rows_of`, `depth` of them; rows' and cols multiples of
// `kTile`
inline void tile_outer(long rows, long cols, long depth, const Short* a, const Short* b, float* c) {
  const long bytes = cols * sizeof(float);
  use_tiles(kTile);
  settle();
  for (long m = 0; m < rows; m += kTile)
    for (long n = 0; n < cols; n += kTile) {
      const Short *left = a + m / kTile * depth * kBlock, *right = b + n / kTile * depth * kBlock;
      float* to = c + m * cols + n;
      _tile_loadd(0, to, bytes);
      for (long k = 0; k < depth; ++k, left += kBlock, right += kBlock) {
        _tile_loadd(4, left, 64);
        _tile_loadd(6, right, 64);
        _tile_dpbf16ps(0, 4, 6);
      }
      _tile_stored(0, to, bytes);
    }
}

// The taps of a row of a kernel, each with A from one pixel on: c [taps][c_next] += A B, as
// `tile_outer`; a [kTile, row], which is read to `taps` numbers beyond its depth
template <int Taps>
inline void tile_taps(long depth, const Short* a, long row, const Short* b, float* c, long c_next,
                      long ld) {
  const long bytes = ld * sizeof(float), step = row * sizeof(Short);
  static_assert(Taps <= 5, "tiles 0 to 4 are C");
  _tile_loadd(0, c, bytes);
  if constexpr (Taps > 1) _tile_loadd(1, c + c_next, bytes);
  if constexpr (Taps > 2) _tile_loadd(2, c + 2 * c_next, bytes);
  if constexpr (Taps > 3) _tile_loadd(3, c + 3 * c_next, bytes);
  if constexpr (Taps > 4) _tile_loadd(4, c + 4 * c_next, bytes);
  for (long k = 0; k < depth; ++k, a += kDepth, b += kBlock) {
    _tile_loadd(6, b, 64);
    _tile_loadd(5, a, step);
    _tile_dpbf16ps(0, 5, 6);
    if constexpr (Taps > 1) {
      _tile_loadd(5, a + 1, step);
      _tile_dpbf16ps(1, 5, 6);
    }
    if constexpr (Taps > 2) {
      _tile_loadd(5, a + 2, step);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (Taps > 3) {
      _tile_loadd(5, a + 3, step);
      _tile_dpbf16ps(3, 5, 6);
    }
    if constexpr (Taps > 4) {
      _tile_loadd(5, a + 4, step);
      _tile_dpbf16ps(4, 5, 6);
    }
  }
  _tile_stored(0, c, bytes);
  if constexpr (Taps > 1) _tile_stored(1, c + c_next, bytes);
  if constexpr (Taps > 2) _tile_stored(2, c + 2 * c_next, bytes);
  if constexpr (Taps > 3) _tile_stored(3, c + 3 * c_next, bytes);
  if constexpr (Taps > 4) _tile_stored(4, c + 4 * c_next, bytes);
}

// All taps of a row of a kernel
inline void taps_of_row(long taps, long depth, const Short* a, long row, const Short* b, float* c,
                        long c_next, long ld) {
  settle();
  for (; taps > 5; taps -= 5, a += 5, c += 5 * c_next)
    tile_taps<5>(depth, a, row, b, c, c_next, ld);
  if (taps == 1) tile_taps<1>(depth, a, row, b, c, c_next, ld);
  if (taps == 2) tile_taps<2>(depth, a, row, b, c, c_next, ld);
  if (taps == 3) tile_taps<3>(depth, a, row, b, c, c_next, ld);
  if (taps == 4) tile_taps<4>(depth, a, row, b, c, c_next, ld);
  if (taps == 5) tile_taps<5>(depth, a, row, b, c, c_next, ld);
}

// a [places, cols] -> its transpose [cols, row], where `row` has room for whole tiles
inline void channel_rows(const Short* a, long places, long cols, Short* to, long row) {
  __m512i pairs[kTile];
  for (long c = 0; c < cols; c += kTile)
    for (long p = 0; p < places; p += kDepth) {
      pair_rows(a + p * cols + c, cols, places - p, cols - c, pairs);
      transpose_pairs(pairs);
      for (long i = 0; i < std::min(kTile, cols - c); ++i)
        std::memcpy(to + (c + i) * row + p, &pairs[i], sizeof pairs[i]);
    }
}

#else

inline bool tiles_available() { return false; }
inline void release_tiles() {}
inline void tile_gemm(long, long, long, Matrix<Short>, const Short*, float*) {}
inline void tile_weights(const Short*, long, long, long, Short*) {}
template <bool Transposed>
inline void tile_rows_of(const Short*, long, long, long, Short*) {}
inline void tile_outer(long, long, long, const Short*, const Short*, float*) {}
inline void taps_of_row(long, long, const Short*, long, const Short*, float*, long, long) {}
inline void channel_rows(const Short*, long, long, Short*, long) {}
inline void use_tiles(long) {}

#endif

}  // namespace fnas
