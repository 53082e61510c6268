// What a forward pass keeps for the backward pass: the results of the convolutions, before their
// normalisation, as float or Short. Everything else is computed again where it is needed, while it
// is in the cache.
#pragma once

#include "vector.h"

namespace fnas {

enum NormIndex { kExpand = 0, kDepthwise = 1, kOut = 2, kNorms = 3 };  // as spec.NORMS

struct KeptSizes {
  long images, in_pixels, out_pixels;
  long channels[kNorms];  // of each normalisation, 0 where there is none
  long gated, hidden;     // channels and hidden units of squeeze-excitation
};

template <class T, class Float>  // each const in a backward pass
struct Kept {
  T* expanded;          // [images, in_pixels, channels[kExpand]']
  T* filtered;          // [images, out_pixels, channels[kDepthwise]']
  T* out;               // [images, out_pixels, channels[kOut]']
  Float* mean[kNorms];  // [channels[n]']
  Float* rstd[kNorms];  // [channels[n]'], 1 / standard deviation
  Float* pooled;        // [images, gated'], input of squeeze-excitation
  Float* gate;          // [images, gated']
  Float* units;         // [images, hidden']
  long size;            // floats in all

  // Divides the memory at `base`; with a null `base`, only `size` is of use.
  static Kept layout(const KeptSizes& n, Float* base) {
    Kept kept{};
    auto take = [&](long floats) {
      Float* start = base == nullptr ? nullptr : base + kept.size;
      kept.size += floats;
      return start;
    };
    auto take_results = [&](long pixels, NormIndex norm) {
      const long size = n.images * pixels * pitch(n.channels[norm]) * sizeof(T);
      return reinterpret_cast<T*>(take(size / sizeof(float)));  // pitches are even
    };
    kept.expanded = take_results(n.in_pixels, kExpand);
    kept.filtered = take_results(n.out_pixels, kDepthwise);
    kept.out = take_results(n.out_pixels, kOut);
    for (int i = 0; i < kNorms; ++i) {
      kept.mean[i] = take(pitch(n.channels[i]));
      kept.rstd[i] = take(pitch(n.channels[i]));
    }
    kept.pooled = take(n.images * pitch(n.gated));
    kept.gate = take(n.images * pitch(n.gated));
    kept.units = take(n.images * pitch(n.hidden));
    return kept;
  }
};

}  // namespace fnas
