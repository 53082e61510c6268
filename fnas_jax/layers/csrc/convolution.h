// Convolutions of one image: 'SAME' padding, any odd kernel, any stride.
#pragma once

#include <algorithm>

#include "vector.h"

namespace fnas {

constexpr long kLargest = 7;  // kernel

// One spatial axis, padded as jax.lax does it.
struct Axis {
  Axis(long size, long kernel, long stride)
      : size(size),
        out((size + stride - 1) / stride),
        low(std::max((out - 1) * stride + kernel - size, 0L) / 2),
        padded(std::max(size + low, (out - 1) * stride + kernel)) {}
  long size, out, low, padded;
};

struct Geometry {
  Geometry(long height, long width, long kernel, long stride)
      : h(height, kernel, stride), w(width, kernel, stride), kernel(kernel), stride(stride) {}
  long pixels() const { return h.size * w.size; }
  long out_pixels() const { return h.out * w.out; }
  // Start of pixel (i, j) of the unpadded image in a padded one.
  long inside(long i, long j, long channels) const {
    return ((i + h.low) * w.padded + j + w.low) * channels;
  }
  long padded_size(long channels) const { return h.padded * w.padded * channels; }
  Axis h, w;
  long kernel, stride;
};

// ---- full convolution as a matrix product with the image's patches

// padded [.., c] -> patches [out_pixels, kernel * kernel * c]
inline void gather_patches(const Geometry& g, const float* padded, long c, float* patches) {
  const long run = g.kernel * c, row = g.w.padded * c;
  for (long i = 0; i < g.h.out; ++i)
    for (long j = 0; j < g.w.out; ++j)
      for (long k = 0; k < g.kernel; ++k, patches += run)
        std::memcpy(patches, padded + (i * g.stride + k) * row + j * g.stride * c,
                    run * sizeof(float));
}

// The transpose: adds patches, `ld` floats each, to `padded`.
inline void scatter_patches(const Geometry& g, const float* patches, long ld, long c,
                            float* padded) {
  const long run = g.kernel * c, row = g.w.padded * c;
  for (long i = 0; i < g.h.out; ++i)
    for (long j = 0; j < g.w.out; ++j, patches += ld)
      for (long k = 0; k < g.kernel; ++k) {
        float* to = padded + (i * g.stride + k) * row + j * g.stride * c;
        for (long e = 0; e < run; ++e) to[e] += patches[k * run + e];
      }
}

// ---- depthwise convolution, row by row

struct Tap {
  const float* in;      // first pixel that it reads
  const float* weight;  // [c]
};

template <int N>
inline void tap_pixels(const Tap* taps, int count, long at, long step_in, long step_out, long c,
                       float* out) {
  Vec sum[N] = {};
  for (int t = 0; t < count; ++t) {
    const Vec weight = load(taps[t].weight + c);
    const float* in = taps[t].in + at * step_in + c;
    for (int i = 0; i < N; ++i) sum[i] += load(in + i * step_in) * weight;
  }
  for (int i = 0; i < N; ++i) store(out + (at + i) * step_out + c, sum[i]);
}

// out[i] = sum over taps of in[i] * weight, for i < n; steps are floats between pixels.
inline void tap_row(const Tap* taps, int count, long n, long step_in, long step_out, long channels,
                    float* out) {
  for (long c = 0; c < channels; c += kLanes) {
    long i = 0;
    for (; i + 8 <= n; i += 8) tap_pixels<8>(taps, count, i, step_in, step_out, c, out);
    if (i + 4 <= n) tap_pixels<4>(taps, count, i, step_in, step_out, c, out), i += 4;
    for (; i < n; ++i) tap_pixels<1>(taps, count, i, step_in, step_out, c, out);
  }
}

// padded [.., c] * weights [kernel * kernel, c] -> out [out_pixels, c]; c is whole vectors
inline void depthwise(const Geometry& g, const float* padded, const float* weights, long c,
                      float* out) {
  Tap taps[kLargest * kLargest];
  for (long i = 0; i < g.h.out; ++i) {
    for (long t = 0; t < g.kernel * g.kernel; ++t) {
      const long y = i * g.stride + t / g.kernel, x = t % g.kernel;
      taps[t] = {padded + (y * g.w.padded + x) * c, weights + t * c};
    }
    tap_row(taps, g.kernel * g.kernel, g.w.out, g.stride * c, c, c, out + i * g.w.out * c);
  }
}

// Cotangents of a depthwise convolution, padded so that every tap of every pixel exists.
struct Cotangents {
  explicit Cotangents(const Geometry& g)
      : margin((g.kernel - 1 + g.stride - 1) / g.stride),
        height(g.h.out + 2 * margin),
        width(g.w.out + 2 * margin) {}
  long row(long i) const { return ((i + margin) * width + margin); }
  long size(long c) const { return height * width * c; }
  long margin, height, width;
};

// Input gradient: cotangents (as laid out by `Cotangents`) -> dx [pixels, c]
inline void depthwise_dx(const Geometry& g, const Cotangents& layout, const float* cotangents,
                         const float* weights, long c, float* dx) {
  Tap taps[kLargest * kLargest];
  for (long i = 0; i < g.h.size; ++i)
    for (long phase = 0; phase < std::min(g.stride, g.w.size); ++phase) {
      // Pixels phase, phase + stride, .. of a row meet the same taps.
      int count = 0;
      for (long y = (i + g.h.low) % g.stride; y < g.kernel; y += g.stride) {
        const long oy = (i + g.h.low - y) / g.stride;  // exact, perhaps negative
        if (oy < 0 || oy >= g.h.out) continue;
        for (long x = (phase + g.w.low) % g.stride; x < g.kernel; x += g.stride) {
          const long ox = (phase + g.w.low - x) / g.stride;
          taps[count++] = {cotangents + (layout.row(oy) + ox) * c, weights + (y * g.kernel + x) * c};
        }
      }
      const long n = (g.w.size - phase + g.stride - 1) / g.stride;
      tap_row(taps, count, n, c, g.stride * c, c, dx + (i * g.w.size + phase) * c);
    }
}

template <int K, int V>
inline void depthwise_dw_lanes(const Geometry& g, const Cotangents& layout, const float* padded,
                               const float* cotangents, long c, long at, float* dw) {
  for (int y = 0; y < K; ++y) {
    Vec sum[K][V] = {};
    for (long i = 0; i < g.h.out; ++i) {
      const float* in = padded + (i * g.stride + y) * g.w.padded * c + at;
      const float* out = cotangents + layout.row(i) * c + at;
      for (long j = 0; j < g.w.out; ++j, in += g.stride * c, out += c)
        for (int v = 0; v < V; ++v) {
          const Vec cotangent = load(out + v * kLanes);
          for (int x = 0; x < K; ++x) sum[x][v] += load(in + x * c + v * kLanes) * cotangent;
        }
    }
    for (int x = 0; x < K; ++x)
      for (int v = 0; v < V; ++v) {
        float* to = dw + (y * K + x) * c + at + v * kLanes;
        store(to, load(to) + sum[x][v]);
      }
  }
}

template <int K>
inline void depthwise_dw_sized(const Geometry& g, const Cotangents& layout, const float* padded,
                               const float* cotangents, long c, float* dw) {
  long at = 0;
  for (; at + 2 * kLanes <= c; at += 2 * kLanes)
    depthwise_dw_lanes<K, 2>(g, layout, padded, cotangents, c, at, dw);
  if (at < c) depthwise_dw_lanes<K, 1>(g, layout, padded, cotangents, c, at, dw);
}

// Weight gradient, added to dw [kernel * kernel, c].
inline void depthwise_dw(const Geometry& g, const Cotangents& layout, const float* padded,
                         const float* cotangents, long c, float* dw) {
  if (g.kernel == 1) return depthwise_dw_sized<1>(g, layout, padded, cotangents, c, dw);
  if (g.kernel == 3) return depthwise_dw_sized<3>(g, layout, padded, cotangents, c, dw);
  if (g.kernel == 5) return depthwise_dw_sized<5>(g, layout, padded, cotangents, c, dw);
  depthwise_dw_sized<7>(g, layout, padded, cotangents, c, dw);
}

// ---- 3x3 average of the pixels that exist, and its transpose, for `skip` = pool

template <class Visit>  // (input pixel, output pixel, 1 / number of pixels averaged)
inline void for_each_pooled(const Geometry& g, Visit visit) {
  for (long i = 0; i < g.h.out; ++i)
    for (long j = 0; j < g.w.out; ++j) {
      const long top = i * g.stride - g.h.low, left = j * g.stride - g.w.low;
      const long y0 = std::max(top, 0L), y1 = std::min(top + 3, g.h.size);
      const long x0 = std::max(left, 0L), x1 = std::min(left + 3, g.w.size);
      const float share = 1.0f / float((y1 - y0) * (x1 - x0));
      for (long y = y0; y < y1; ++y)
        for (long x = x0; x < x1; ++x) visit(y * g.w.size + x, i * g.w.out + j, share);
    }
}

}  // namespace fnas
