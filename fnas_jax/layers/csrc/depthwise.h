// Depthwise convolution of one image, row by row, and its derivatives.
#pragma once

#include "geometry.h"
#include "vector.h"

namespace fnas {

constexpr long kLargestKernel = 7;

struct Tap {
  const float* in;      // first pixel that it reads
  const float* weight;  // [c]
};

// N pixels from `at` on, of the kLanes channels from c on
template <int N, class T>
inline void tap_pixels(const Tap* taps, int count, long at, long step_in, long step_out, long c,
                       T* out) {
  Vec sum[N] = {};
  for (int t = 0; t < count; ++t) {
    const Vec weight = load(taps[t].weight + c);
    const float* in = taps[t].in + at * step_in + c;
    for (int i = 0; i < N; ++i) sum[i] += load(in + i * step_in) * weight;
  }
  for (int i = 0; i < N; ++i) store(out + (at + i) * step_out + c, sum[i]);
}

// out[i] = sum over taps of in[i] * weight, for i < n; steps are numbers between pixels.
template <class T>
inline void tap_row(const Tap* taps, int count, long n, long step_in, long step_out, long channels,
                    T* out) {
  for (long c = 0; c < channels; c += kLanes) {
    long i = 0;
    for (; i + 8 <= n; i += 8) tap_pixels<8>(taps, count, i, step_in, step_out, c, out);
    if (i + 4 <= n) {
      tap_pixels<4>(taps, count, i, step_in, step_out, c, out);
      i += 4;
    }
    for (; i < n; ++i) tap_pixels<1>(taps, count, i, step_in, step_out, c, out);
  }
}

// padded [h.padded, w.padded, c] * weights [kernel * kernel, c] -> out [out_pixels, c]; c is whole
// vectors
template <class T>
inline void depthwise(const Geometry& g, const float* padded, const float* weights, long c,
                      T* out) {
  Tap taps[kLargestKernel * kLargestKernel];
  for (long i = 0; i < g.h.out; ++i) {
    for (long t = 0; t < g.kernel * g.kernel; ++t) {
      const long y = i * g.stride + t / g.kernel, x = t % g.kernel;
      taps[t] = {padded + (y * g.w.padded + x) * c, weights + t * c};
    }
    tap_row(taps, g.kernel * g.kernel, g.w.out, g.stride * c, c, c, out + i * g.w.out * c);
  }
}

// dout [height, width, c] of `layout`, weights [kernel * kernel, c] -> dx [in_pixels, c]
inline void depthwise_dx(const Geometry& g, const PaddedOutput& layout, const float* dout,
                         const float* weights, long c, float* dx) {
  Tap taps[kLargestKernel * kLargestKernel];
  for (long i = 0; i < g.h.size; ++i)
    for (long phase = 0; phase < std::min(g.stride, g.w.size); ++phase) {
      // Pixels phase, phase + stride, .. of a row meet the same taps.
      int count = 0;
      for (long y = (i + g.h.low) % g.stride; y < g.kernel; y += g.stride) {
        const long oy = (i + g.h.low - y) / g.stride;  // exact, perhaps negative
        if (oy < 0 || oy >= g.h.out) continue;
        for (long x = (phase + g.w.low) % g.stride; x < g.kernel; x += g.stride) {
          const long ox = (phase + g.w.low - x) / g.stride;
          taps[count++] = {dout + (layout.row(oy) + ox) * c, weights + (y * g.kernel + x) * c};
        }
      }
      const long n = (g.w.size - phase + g.stride - 1) / g.stride;
      tap_row(taps, count, n, c, g.stride * c, c, dx + (i * g.w.size + phase) * c);
    }
}

// V vectors of channels from `at` on
template <int K, int V>
inline void depthwise_dw_lanes(const Geometry& g, const PaddedOutput& layout, const float* padded,
                               const float* dout, long c, long at, float* dw) {
  for (int y = 0; y < K; ++y) {
    Vec sum[K][V] = {};
    for (long i = 0; i < g.h.out; ++i) {
      const float* in = padded + (i * g.stride + y) * g.w.padded * c + at;
      const float* out = dout + layout.row(i) * c + at;
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
inline void depthwise_dw_sized(const Geometry& g, const PaddedOutput& layout, const float* padded,
                               const float* dout, long c, float* dw) {
  long at = 0;
  for (; at + 2 * kLanes <= c; at += 2 * kLanes)
    depthwise_dw_lanes<K, 2>(g, layout, padded, dout, c, at, dw);
  if (at < c) depthwise_dw_lanes<K, 1>(g, layout, padded, dout, c, at, dw);
}

// padded [h.padded, w.padded, c], dout [height, width, c] of `layout` -> added to dw [kernel *
// kernel, c]
inline void depthwise_dw(const Geometry& g, const PaddedOutput& layout, const float* padded,
                         const float* dout, long c, float* dw) {
  if (g.kernel == 1) return depthwise_dw_sized<1>(g, layout, padded, dout, c, dw);
  if (g.kernel == 3) return depthwise_dw_sized<3>(g, layout, padded, dout, c, dw);
  if (g.kernel == 5) return depthwise_dw_sized<5>(g, layout, padded, dout, c, dw);
  static_assert(kLargestKernel == 7, "the largest kernel is the last case");
  depthwise_dw_sized<7>(g, layout, padded, dout, c, dw);
}

}  // namespace fnas
