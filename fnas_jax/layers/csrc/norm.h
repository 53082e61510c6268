// Batch normalisation, activation and squeeze-excitation of rows of pixels [rows, p].
#pragma once

#include <cmath>
#include <vector>

#include "vector.h"

namespace fnas {

constexpr float kEpsilon = 1e-5f;  // ops.BN_EPSILON
enum Act { kNone = 0, kRelu = 1, kRelu6 = 2 };

// Comparisons are written so that NaN stays NaN: a child that diverges has to be seen.
template <Act A>
inline Vec activate(Vec z) {
  if constexpr (A != kNone) z = z < 0.0f ? Vec{} : z;
  if constexpr (A == kRelu6) z = z > 6.0f ? Vec{} + 6.0f : z;
  return z;
}

template <Act A>
inline Vec open(Vec z, Vec g) {
  if constexpr (A == kRelu) g = z > 0.0f ? g : Vec{};
  if constexpr (A == kRelu6) g = (z > 0.0f) & (z < 6.0f) ? g : Vec{};
  return g;
}

// One normalisation of p channels; scale and bias are zero beyond the child's.
struct Norm {
  explicit Norm(long p) : p(p), scale(p), bias(p), mean(p), rstd(p), slope(p), sum(p), square(p) {}

  // Adds the rows to the batch's sums.
  void collect(const float* x, long rows) {
    for (long c = 0; c < p; c += kLanes) {
      Vec s = {}, q = {};
      for (long r = 0; r < rows; ++r) {
        const Vec v = load(x + r * p + c);
        s += v;
        q += v * v;
      }
      for (long i = 0; i < kLanes; ++i) sum[c + i] += s[i], square[c + i] += q[i];
    }
  }

  void use_batch(double count) {
    for (long c = 0; c < p; ++c) {
      const double m = sum[c] / count, v = square[c] / count - m * m;
      set(c, float(m), v < 0 ? 0.0f : float(v));
    }
  }

  void set(long c, float m, float variance) {
    mean[c] = m;
    rstd[c] = 1.0f / std::sqrt(variance + kEpsilon);
    slope[c] = scale[c] * rstd[c];
  }

  float variance(long c) const { return 1.0f / (rstd[c] * rstd[c]) - kEpsilon; }

  // z of channels c..c + 15, before the activation
  Vec at(const float* x, long c) const {
    return (load(x + c) - load(&mean[c])) * load(&slope[c]) + load(&bias[c]);
  }

  long p;
  std::vector<float> scale, bias, mean, rstd, slope;
  std::vector<double> sum, square;
};

template <class Body>
inline void with_act(long act, Body body) {
  if (act == kNone) body(std::integral_constant<Act, kNone>());
  if (act == kRelu) body(std::integral_constant<Act, kRelu>());
  if (act == kRelu6) body(std::integral_constant<Act, kRelu6>());
}

// act(norm(x)) -> out, both [rows, p]; times `gate` [p] where there is one
inline void norm_act(const Norm& norm, long act, const float* x, long rows, const float* gate,
                     float* out) {
  const long p = norm.p;
  with_act(act, [&](auto a) {
    for (long r = 0; r < rows; ++r)
      for (long c = 0; c < p; c += kLanes) {
        Vec h = activate<a.value>(norm.at(x + r * p, c));
        if (gate != nullptr) h *= load(gate + c);
        store(out + r * p + c, h);
      }
  });
}

// Mean over rows of act(norm(x)) -> out [p]
inline void mean_act(const Norm& norm, long act, const float* x, long rows, float* out) {
  const long p = norm.p;
  with_act(act, [&](auto a) {
    for (long c = 0; c < p; c += kLanes) {
      Vec sum = {};
      for (long r = 0; r < rows; ++r) sum += activate<a.value>(norm.at(x + r * p, c));
      store(out + c, sum / float(rows));
    }
  });
}

// Derivatives of a normalisation: the sums over the batch that its scale, bias and input need.
struct NormGradient {
  explicit NormGradient(const Norm& norm)
      : norm(norm), dscale(norm.p), dbias(norm.p), a(norm.p), b(norm.p), c(norm.p) {}

  // g [rows, p], cotangents of act(norm(x)), becomes those of norm(x) and is added to the sums;
  // before, g is multiplied by `gate` and `shift` is added, [p] each or null.
  void open_and_collect(long act, const float* x, long rows, const float* gate, const float* shift,
                        float* g) {
    const long p = norm.p;
    with_act(act, [&](auto A) {
      for (long k = 0; k < p; k += kLanes) {
        Vec sum = {}, product = {};
        const Vec mean = load(&norm.mean[k]), rstd = load(&norm.rstd[k]);
        const Vec gain = gate ? load(gate + k) : Vec{} + 1.0f, add = shift ? load(shift + k) : Vec{};
        for (long r = 0; r < rows; ++r) {
          float* at = g + r * p + k;
          const Vec v = open<A.value>(norm.at(x + r * p, k), load(at) * gain + add);
          store(at, v);
          sum += v;
          product += v * ((load(x + r * p + k) - mean) * rstd);
        }
        for (long i = 0; i < kLanes; ++i) dbias[k + i] += sum[i], dscale[k + i] += product[i];
      }
    });
  }

  // dx = slope * (g - (dbias + normed * dscale) / count), as a g + b x + c
  void finish(double count) {
    for (long k = 0; k < norm.p; ++k) {
      const double s = norm.slope[k], t = norm.rstd[k] * dscale[k] / count;
      a[k] = float(s);
      b[k] = float(-s * t);
      c[k] = float(s * (norm.mean[k] * t - dbias[k] / count));
    }
  }

  void input(const float* x, const float* g, long rows, float* dx) const {
    const long p = norm.p;
    for (long r = 0; r < rows; ++r)
      for (long k = 0; k < p; k += kLanes)
        store(dx + r * p + k, load(&a[k]) * load(g + r * p + k) +
                                  load(&b[k]) * load(x + r * p + k) + load(&c[k]));
  }

  const Norm& norm;
  std::vector<double> dscale, dbias;
  std::vector<float> a, b, c;
};

// Squeeze-excitation of one image: gate = sigmoid(relu(pooled w1 + b1) w2 + b2).
struct Excite {
  long channels, hidden;        // that the child uses
  long ld1, ld2;                // row strides of w1 [channels, hidden] and w2 [hidden, channels]
  const float *w1, *b1, *w2, *b2;

  void forward(const float* pooled, float* unit, float* gate) const {
    std::copy(b1, b1 + hidden, unit);
    for (long c = 0; c < channels; ++c)
      for (long r = 0; r < hidden; ++r) unit[r] += pooled[c] * w1[c * ld1 + r];
    std::copy(b2, b2 + channels, gate);
    for (long r = 0; r < hidden; ++r) {
      unit[r] = unit[r] < 0 ? 0 : unit[r];
      for (long c = 0; c < channels; ++c) gate[c] += unit[r] * w2[r * ld2 + c];
    }
    for (long c = 0; c < channels; ++c) gate[c] = 1 / (1 + std::exp(-gate[c]));
  }

  // dgate [channels] is overwritten; derivatives are added to d1, e1, d2, e2, which have the
  // strides of w1, b1, w2, b2.
  void backward(const float* pooled, const float* unit, const float* gate, float* dgate, float* d1,
                float* e1, float* d2, float* e2, float* dpooled) const {
    for (long c = 0; c < channels; ++c) {
      dgate[c] *= gate[c] * (1 - gate[c]);
      e2[c] += dgate[c];
      dpooled[c] = 0;
    }
    for (long r = 0; r < hidden; ++r) {
      float du = 0;
      for (long c = 0; c < channels; ++c) {
        d2[r * ld2 + c] += unit[r] * dgate[c];
        du += w2[r * ld2 + c] * dgate[c];
      }
      if (!(unit[r] > 0)) continue;
      e1[r] += du;
      for (long c = 0; c < channels; ++c) {
        d1[c * ld1 + r] += pooled[c] * du;
        dpooled[c] += w1[c * ld1 + r] * du;
      }
    }
  }
};

}  // namespace fnas
