// 3x3 average of the pixels that exist, for `skip` = pool, and its transpose.
#pragma once

#include "geometry.h"

namespace fnas {

constexpr long kPoolWindow = 3;

template <class Visit>  // (input pixel, output pixel, 1 / number of pixels averaged)
inline void for_each_pooled(const Geometry& g, Visit visit) {
  for (long i = 0; i < g.h.out; ++i)
    for (long j = 0; j < g.w.out; ++j) {
      const long top = i * g.stride - g.h.low, left = j * g.stride - g.w.low;
      const long y0 = std::max(top, 0L), y1 = std::min(top + kPoolWindow, g.h.size);
      const long x0 = std::max(left, 0L), x1 = std::min(left + kPoolWindow, g.w.size);
      const float share = 1.0f / float((y1 - y0) * (x1 - x0));
      for (long y = y0; y < y1; ++y)
        for (long x = x0; x < x1; ++x) visit(y * g.w.size + x, i * g.w.out + j, share);
    }
}

// Adds the averages of x [in_pixels, c] to y [out_pixels, c], each with its row stride.
inline void add_pooled(const Geometry& g, const float* x, long ldx, long c, float* y, long ldy) {
  for_each_pooled(g, [&](long in, long out, float share) {
    for (long k = 0; k < c; ++k) y[out * ldy + k] += share * x[in * ldx + k];
  });
}

inline void add_pooled_backward(const Geometry& g, const float* dy, long ldy, long c, float* dx,
                                long ldx) {
  for_each_pooled(g, [&](long in, long out, float share) {
    for (long k = 0; k < c; ++k) dx[in * ldx + k] += share * dy[out * ldy + k];
  });
}

}  // namespace fnas
