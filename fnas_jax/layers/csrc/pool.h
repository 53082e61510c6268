// 3x3 average of the pixels that exist, for `skip` = pool, and its transpose.
#pragma once

#include "geometry.h"
#include "vector.h"

namespace fnas {

constexpr long kPoolWindow = 3;

// Places first, .., end - 1 of an axis
struct Span {
  long first, end;
  float share() const {
    constexpr float kShares[kPoolWindow + 1] = {0.0f, 1.0f, 1.0f / 2, 1.0f / 3};
    return kShares[end - first];
  }
};

// The pixels of the input that output i averages
inline Span averaged(const Axis& axis, long stride, long i) {
  const long first = i * stride - axis.low;
  return {std::max(first, 0L), std::min(first + kPoolWindow, axis.size)};
}

// The outputs that average input i
inline Span averaging(const Axis& axis, long stride, long i) {
  const long last = (i + axis.low) / stride;
  const long first = (i + axis.low - kPoolWindow + stride) / stride;
  return {std::max(first, 0L), std::min(last + 1, axis.out)};
}

struct Term {
  const float* from;  // [n]
  float weight;
};

// Adds the weighted sum of the terms to `to` [n].
inline void add_terms(const Term* terms, int count, long n, float* to) {
  long k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    Vec sum = load(to + k);
    for (int t = 0; t < count; ++t) sum += terms[t].weight * load(terms[t].from + k);
    store(to + k, sum);
  }
  if (k == n) return;
  Vec sum = load_first(to + k, n - k);
  for (int t = 0; t < count; ++t) sum += terms[t].weight * load_first(terms[t].from + k, n - k);
  store_first(to + k, n - k, sum);
}

// Adds the averages of x [in_pixels, c] to y [out_pixels, c], each with its row stride.
inline void add_pooled(const Geometry& g, const float* x, long ldx, long c, float* y, long ldy) {
  Term terms[kPoolWindow * kPoolWindow];
  for (long i = 0; i < g.h.out; ++i) {
    const Span rows = averaged(g.h, g.stride, i);
    for (long j = 0; j < g.w.out; ++j, y += ldy) {
      const Span columns = averaged(g.w, g.stride, j);
      int count = 0;
      for (long r = rows.first; r < rows.end; ++r)
        for (long q = columns.first; q < columns.end; ++q)
          terms[count++] = {x + (r * g.w.size + q) * ldx, rows.share() * columns.share()};
      add_terms(terms, count, c, y);
    }
  }
}

// The transpose: adds to dx what each of its pixels has a share of in dy.
inline void add_pooled_backward(const Geometry& g, const float* dy, long ldy, long c, float* dx,
                                long ldx) {
  Term terms[kPoolWindow * kPoolWindow];
  for (long r = 0; r < g.h.size; ++r) {
    const Span rows = averaging(g.h, g.stride, r);
    for (long q = 0; q < g.w.size; ++q, dx += ldx) {
      const Span columns = averaging(g.w, g.stride, q);
      int count = 0;
      for (long i = rows.first; i < rows.end; ++i)
        for (long j = columns.first; j < columns.end; ++j)
          terms[count++] = {dy + (i * g.w.out + j) * ldy, averaged(g.h, g.stride, i).share() *
                                                              averaged(g.w, g.stride, j).share()};
      add_terms(terms, count, c, dx);
    }
  }
}

}  // namespace fnas
