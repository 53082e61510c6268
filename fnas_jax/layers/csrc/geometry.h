// Sizes of an image before and after a convolution: 'SAME' padding, any odd kernel, any stride.
#pragma once

#include <algorithm>

namespace fnas {

// One spatial axis, padded as jax.lax does it.
struct Axis {
  Axis(long size, long kernel, long stride)
      : size(size),
        out((size + stride - 1) / stride),
        low(std::max((out - 1) * stride + kernel - size, 0L) / 2),
        padded(std::max(size + low, (out - 1) * stride + kernel)) {}
  long size, out;    // pixels before and after
  long low, padded;  // pixels of padding before the first one, and of both sides with the image
};

struct Geometry {
  Geometry(long height, long width, long kernel, long stride)
      : h(height, kernel, stride), w(width, kernel, stride), kernel(kernel), stride(stride) {}
  long in_pixels() const { return h.size * w.size; }
  long out_pixels() const { return h.out * w.out; }
  // Start of pixel (i, j) of the unpadded image in a padded one.
  long inside(long i, long j, long channels) const {
    return ((i + h.low) * w.padded + j + w.low) * channels;
  }
  long padded_size(long channels) const { return h.padded * w.padded * channels; }
  Axis h, w;
  long kernel, stride;
};

}  // namespace fnas
