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

// Output pixels with a margin of zeros, so that every tap of every input pixel exists.
struct PaddedOutput {
  explicit PaddedOutput(const Geometry& g)
      : margin((g.kernel - 1 + g.stride - 1) / g.stride),
        height(g.h.out + 2 * margin),
        width(g.w.out + 2 * margin) {}
  // The first pixel of row i.
  long row(long i) const { return ((i + margin) * width + margin); }
  long size(long c) const { return height * width * c; }
  long margin, height, width;
};

// Taps `phase`, phase + stride, .. of an axis of a kernel
inline long taps_of_phase(long kernel, long stride, long phase) {
  return std::max(kernel - phase + stride - 1, 0L) / stride;
}

// The taps that pixel i of an input meets along an axis, the last one first: at the output pixels
// `out`, out + 1, ..
struct Taps {
  Taps(const Axis& axis, long kernel, long stride, long i)
      : phase((i + axis.low) % stride),
        count(taps_of_phase(kernel, stride, phase)),
        out((i + axis.low) / stride - count + 1) {}
  long phase, count, out;
};

}  // namespace fnas
