// Full convolution of an image as a matrix product with its patches.
#pragma once

#include "geometry.h"
#include "vector.h"

namespace fnas {

// padded [h.padded, w.padded, c] -> patches [out_pixels, kernel * kernel * c]
inline void im2col(const Geometry& g, const float* padded, long c, float* patches) {
  const long run = g.kernel * c, row = g.w.padded * c;
  for (long i = 0; i < g.h.out; ++i)
    for (long j = 0; j < g.w.out; ++j)
      for (long k = 0; k < g.kernel; ++k, patches += run)
        std::memcpy(patches, padded + (i * g.stride + k) * row + j * g.stride * c,
                    run * sizeof(float));
}

// The transpose: adds patches, `ld` floats each, to padded [h.padded, w.padded, c].
inline void col2im(const Geometry& g, const float* patches, long ld, long c, float* padded) {
  const long run = g.kernel * c, row = g.w.padded * c;
  for (long i = 0; i < g.h.out; ++i)
    for (long j = 0; j < g.w.out; ++j, patches += ld)
      for (long k = 0; k < g.kernel; ++k) {
        float* to = padded + (i * g.stride + k) * row + j * g.stride * c;
        for (long e = 0; e < run; ++e) to[e] += patches[k * run + e];
      }
}

}  // namespace fnas
