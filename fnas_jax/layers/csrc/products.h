// Products of rows of pixels with weights, and of their cotangents. Factors are float32 or bfloat16
// numbers, sums float32.
#pragma once

#include "gemm.h"
#include "tiles.h"
#include "workspace.h"

namespace fnas {

// What products of shorts read beyond their factors, which has to be numbers, or write
constexpr long kSlack = std::max(kDepth, kPairSlack);

// Room for `count` factors
template <class T>
inline T* factors(Scratch& scratch, long count) {
  if constexpr (std::is_same_v<T, float>) return scratch.get(count);
  T* to = scratch.of<T>(count + kSlack);
  std::memset(to + count, 0, kSlack * sizeof(T));
  return to;
}

template <class T>
struct Rows {
  const T* data;
  long ld;
};

// a [rows, ld] of `cols` columns as factors
template <class T>
inline Rows<T> as_factors(Scratch& scratch, const float* a, long ld, long rows, long cols) {
  if constexpr (std::is_same_v<T, float>)
    return {a, ld};
  else {
    T* to = factors<T>(scratch, rows * cols);
    copy_rows(a, ld, rows, cols, to, cols);
    return {to, cols};
  }
}

// Room for `count` float32 numbers that will be kept as T: where they are kept, if T is float; else
// until the next call of this or of `as_floats`
template <class T>
inline float* room_for(T* kept, long count) {
  if constexpr (std::is_same_v<T, float>)
    return kept;
  else
    return work().floats.get(count);
}

// What was written there -> `kept`
template <class T>
inline void keep(const float* written, long count, T* kept) {
  if constexpr (!std::is_same_v<T, float>) copy_row(written, count, kept);
}

// The reverse: what was kept, as float32 numbers
template <class T>
inline const float* as_floats(T* kept, long count) {
  float* floats = room_for(kept, count);
  if constexpr (!std::is_same_v<T, float>) copy_row(kept, count, floats);
  return floats;
}

// C [n, cols] = A [n, runs * length] B; B [runs * length, cols], cols a multiple of kLanes
template <class T>
class Product;

template <>
class Product<float> {
 public:
  static long packed_size(long, long, long) { return 0; }

  Product(const float* b, long runs, long length, long cols, float*, bool = true)
      : b_(b), runs_(runs), length_(length), cols_(cols) {}

  // A has `row` numbers from row to row and `jump` from run to run.
  void operator()(long n, const float* a, long row, long jump, float* c) const {
    gemm<float>(n, cols_, runs_ * length_, {a, row, 1, runs_, jump}, b_, c);
  }

 private:
  const float* b_;
  long runs_, length_, cols_;
};

template <>
class Product<Short> {
 public:
  // Numbers that `packed` holds
  static long packed_size(long runs, long length, long cols) {
    return runs * tiles_of(length, kDepth) * kDepth * cols + kSlack;
  }

  // `wide`: large enough for tiles, where the CPU has them
  Product(const float* b, long runs, long length, long cols, Short* packed, bool wide = true)
      : runs_(runs), length_(length), cols_(cols), tiles_(wide && tiles_available()), b_(packed) {
    const Rows<Short> rows = as_factors<Short>(work().short_weights, b, cols, runs * length, cols);
    if (tiles_) tile_weights(rows.data, runs, length, cols, packed);
    for (long run = 0; run < runs && !tiles_; ++run, packed += 2 * pairs_of(length) * cols)
      interleave(rows.data + run * length * cols, cols, length, cols, packed);
  }

  void operator()(long n, const Short* a, long row, long jump, float* c) const {
    if (tiles_)
      tile_gemm(n, cols_, length_, {a, row, 1, runs_, jump}, b_, c);
    else
      gemm<Short>(n, cols_, runs_ * pairs_of(length_), {a, row, 2, runs_, jump}, b_, c);
  }

 private:
  long runs_, length_, cols_;
  bool tiles_;
  const Short* b_;
};

// C [n, cols] = A [n, depth] B [depth, cols]; `wide` as above
template <class T>
class RowsTimes {
 public:
  RowsTimes(bool wide, const float* b, long depth, long cols)
      : product_(b, 1, depth, cols,
                 work().packed_weights.of<T>(Product<T>::packed_size(1, depth, cols)), wide) {}

  void operator()(long n, Rows<T> a, float* c) const { product_(n, a.data, a.ld, 0, c); }

 private:
  Product<T> product_;
};

// Sums of A^T B, [rows, cols], over parts of A [n, rows] and B [n, cols]; cols a multiple of kLanes
template <class T>
class Outer {
 public:
  Outer(bool wide, long rows, long cols)
      : sum(work().dweights.zeros(tiles_of(rows, kTile) * kTile * cols)),
        tiles_(wide && tiles_available()),
        rows_(rows),
        cols_(cols) {}

  void add(long n, Rows<T> a, const T* b) {
    if constexpr (std::is_same_v<T, float>)
      add_gemm<T>(rows_, cols_, n, {a.data, 1, a.ld}, b, sum);
    else if (tiles_)
      add_by_tiles(n, a, b);
    else
      add_by_pairs(n, a, b);
  }

  float* const sum;  // [rows, cols]

 private:
  void add_by_pairs(long n, Rows<T> a, const T* b) {
    const long pairs = pairs_of(n);
    Short* left = factors<Short>(work().packed_left, 2 * pairs * rows_);
    Short* right = factors<Short>(work().packed_right, 2 * pairs * cols_);
    interleave(a.data, a.ld, n, rows_, left);
    interleave(b, cols_, n, cols_, right);
    add_gemm<Short>(rows_, cols_, pairs, {left, 2, 2 * rows_}, right, sum);
  }

  void add_by_tiles(long n, Rows<T> a, const T* b) {
    const long depth = tiles_of(n, kDepth), high = tiles_of(rows_, kTile);
    Short* left = factors<Short>(work().packed_left, depth * high * kBlock);
    Short* right = factors<Short>(work().packed_right, depth * cols_ / kTile * kBlock);
    tile_rows_of<true>(a.data, a.ld, n, rows_, left);
    tile_rows_of<false>(b, cols_, n, cols_, right);
    tile_outer(high * kTile, cols_, depth, left, right, sum);
  }

  bool tiles_;
  long rows_, cols_;
};

}  // namespace fnas
