// Products of rows of pixels with weights, and of their cotangents, in float32 or by tiles.
#pragma once

#include "gemm.h"
#include "tiles.h"
#include "workspace.h"

namespace fnas {

inline Short* shorts(Scratch& scratch, long count) {
  return reinterpret_cast<Short*>(scratch.get((count + 1) / 2));
}

// a [rows, ld] of `cols` columns -> [rows, cols], with zeros behind it
inline Short* shortened(Scratch& scratch, const float* a, long ld, long rows, long cols) {
  Short* to = shorts(scratch, rows * cols + kSlack);
  if (ld == cols) shorten(a, rows * cols, to);
  for (long r = 0; r < rows && ld != cols; ++r) shorten(a + r * ld, cols, to + r * cols);
  std::memset(to + rows * cols, 0, kSlack * sizeof(Short));
  return to;
}

// Pixels of an image with its padding, or of some rows
struct Pixels {
  const float* data;
  const Short* shorts;  // null: products are in float32
};

// C [n, cols] = A [n, runs * length] B; B [runs * length, cols], cols a multiple of kLanes
class Product {
 public:
  // Numbers that `tiled` holds
  static long tiled_size(long runs, long length, long cols) {
    return runs * tiles_of(length, kDepth) * kDepth * cols;
  }

  // `tiled` null: in float32
  Product(const float* b, long runs, long length, long cols, Short* tiled)
      : b_(b), runs_(runs), length_(length), cols_(cols), tiled_(tiled) {
    if (tiled != nullptr) tile_weights(b, runs, length, cols, tiled);
  }

  // A begins at number `first` of the pixels, with `row` numbers from row to row and `jump` from
  // run to run.
  void operator()(long n, Pixels pixels, long first, long row, long jump, float* c) const {
    if (tiled_ == nullptr)
      gemm(n, cols_, runs_ * length_, {pixels.data + first, row, 1, runs_, jump}, b_, c);
    else
      tile_gemm(n, cols_, length_, {pixels.shorts + first, row, runs_, jump}, tiled_, c);
  }

 private:
  const float* b_;
  long runs_, length_, cols_;
  const Short* tiled_;
};

// C [n, cols] = A [n, depth] B [depth, cols]
class RowsTimes {
 public:
  RowsTimes(bool tiles, const float* b, long depth, long cols)
      : depth_(depth),
        tiles_(tiles),
        product_(
            b, 1, depth, cols,
            tiles ? shorts(work().tiled_weights, Product::tiled_size(1, depth, cols)) : nullptr) {}

  void operator()(long n, const float* a, long ld, float* c) const {
    if (tiles_)
      product_(n, {nullptr, shortened(work().short_rows, a, ld, n, depth_)}, 0, depth_, 0, c);
    else
      product_(n, {a, nullptr}, 0, ld, 0, c);
  }

 private:
  long depth_;
  bool tiles_;
  Product product_;
};

// Sums of A^T B, [rows, cols], over parts of A [n, rows] and B [n, cols]; cols a multiple of kLanes
class Outer {
 public:
  Outer(bool tiles, long rows, long cols)
      : sum(work().dweights.zeros(tiles_of(rows, kTile) * kTile * cols)),
        tiles_(tiles),
        rows_(rows),
        cols_(cols) {}

  void add(long n, const float* a, long ld, const float* b) {
    if (!tiles_) return add_gemm(rows_, cols_, n, {a, 1, ld}, b, sum);
    const long depth = tiles_of(n, kDepth), high = tiles_of(rows_, kTile);
    Short* left = shorts(work().tiled_left, depth * high * kBlock);
    Short* right = shorts(work().tiled_right, depth * cols_ / kTile * kBlock);
    tile_rows_of<true>(a, ld, n, rows_, left);
    tile_rows_of<false>(b, cols_, n, cols_, right);
    tile_outer(high * kTile, cols_, depth, left, right, sum);
  }

  float* const sum;  // [rows, cols]

 private:
  bool tiles_;
  long rows_, cols_;
};

}  // namespace fnas
