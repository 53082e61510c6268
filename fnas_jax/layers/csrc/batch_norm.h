// Batch normalisation and activation of rows of pixels [rows, p], p a multiple of kLanes.
#pragma once

#include <cmath>
#include <type_traits>
#include <vector>

#include "vector.h"

namespace fnas {

constexpr float kEpsilon = 1e-5f;  // ops.BN_EPSILON

enum Act { kNone = 0, kRelu = 1, kRelu6 = 2, kHardSwish = 3, kActs };

// Comparisons are written so that NaN stays NaN: a child that diverges has to be seen.
inline Vec relu(Vec z) { return larger(Vec{}, z); }

inline Vec relu6(Vec z) { return smaller(Vec{} + 6.0f, relu(z)); }

template <Act A>
inline Vec activate(Vec z) {
  if constexpr (A == kRelu) z = relu(z);
  if constexpr (A == kRelu6) z = relu6(z);
  if constexpr (A == kHardSwish) z = z * (relu6(z + 3.0f) * (1.0f / 6.0f));
  return z;
}

// Cotangents of activate(z) -> those of z
template <Act A>
inline Vec activate_backward(Vec z, Vec dh) {
  if constexpr (A == kRelu) dh = z > 0.0f ? dh : Vec{};
  if constexpr (A == kRelu6) dh = (z > 0.0f) & (z < 6.0f) ? dh : Vec{};
  if constexpr (A == kHardSwish) {
    const Vec inside = dh * ((2.0f * z + 3.0f) * (1.0f / 6.0f));
    dh = z <= -3.0f ? Vec{} : z >= 3.0f ? dh : inside;
  }
  return dh;
}

// Calls `body` with the activation as a constant.
template <class Body>
inline void with_act(long act, Body body) {
  if (act == kNone) body(std::integral_constant<Act, kNone>());
  if (act == kRelu) body(std::integral_constant<Act, kRelu>());
  if (act == kRelu6) body(std::integral_constant<Act, kRelu6>());
  if (act == kHardSwish) body(std::integral_constant<Act, kHardSwish>());
}

// One normalisation of p channels; scale and bias are zero beyond the child's.
struct Norm {
  explicit Norm(long p)
      : p(p), scale(p), bias(p), mean(p), rstd(p), slope(p), offset(p), sum(p), square(p) {}

  // Adds x [rows, p] to the batch's sums.
  template <class T>
  void collect(const T* x, long rows) {
    for (long c = 0; c < p; c += kLanes) {
      Vec s = {}, q = {};
      for (long r = 0; r < rows; ++r) {
        const Vec v = load(x + r * p + c);
        s += v;
        q += v * v;
      }
      for (long i = 0; i < kLanes; ++i) {
        sum[c + i] += s[i];
        square[c + i] += q[i];
      }
    }
  }

  // Moments from the sums over `count` pixels.
  void use_sums(double count) {
    for (long c = 0; c < p; ++c) {
      const double m = sum[c] / count, v = square[c] / count - m * m;
      set(c, float(m), v < 0 ? 0.0f : float(v));
    }
  }

  void set(long c, float m, float variance) { use(c, m, 1.0f / std::sqrt(variance + kEpsilon)); }

  // `inverse`: 1 / standard deviation
  void use(long c, float m, float inverse) {
    mean[c] = m;
    rstd[c] = inverse;
    slope[c] = scale[c] * inverse;
    offset[c] = bias[c] - m * slope[c];
  }

  // Moments that were kept, mean [p] and 1 / standard deviation [p].
  void restore(const float* kept_mean, const float* kept_rstd) {
    for (long c = 0; c < p; ++c) use(c, kept_mean[c], kept_rstd[c]);
  }

  float variance(long c) const { return 1.0f / (rstd[c] * rstd[c]) - kEpsilon; }

  // x -> z of the channels from c on, before the activation
  struct Lanes {
    Vec slope, offset;
    Vec operator()(Vec x) const { return x * slope + offset; }
  };
  Lanes lanes(long c) const { return {load(&slope[c]), load(&offset[c])}; }

  long p;
  // [p] each; the result is slope * x + offset
  std::vector<float> scale, bias, mean, rstd, slope, offset;
  std::vector<double> sum, square;  // [p] over the batch
};

// act(norm(x)) -> out, both [rows, p]; times `gate` [p] where there is one
template <class T, class Out>
inline void norm_act(const Norm& norm, long act, const T* x, long rows, const float* gate,
                     Out* out) {
  const long p = norm.p;
  with_act(act, [&](auto a) {
    for (long r = 0; r < rows; ++r)
      for (long c = 0; c < p; c += kLanes) {
        Vec h = activate<a.value>(norm.lanes(c)(load(x + r * p + c)));
        if (gate != nullptr) h *= load(gate + c);
        store(out + r * p + c, h);
      }
  });
}

// Derivatives of a normalisation: the sums over the batch that its scale, bias and input need.
struct NormGradient {
  explicit NormGradient(const Norm& norm)
      : norm(norm), dscale(norm.p), dbias(norm.p), a(norm.p), b(norm.p), c(norm.p) {}

  // dh [rows, p], cotangents of the gated act(norm(x)) -> g [rows, p], those of norm(x), which are
  // added to the sums. `gate` [p] multiplied the activations and `dmean` [p] is what their mean
  // adds to every pixel's cotangents; the activations are put into h [rows, p]. `gate`, `dmean` and
  // `h` may be null.
  template <class T>
  void norm_act_backward(long act, const T* x, long rows, const float* gate, const float* dmean,
                         const float* dh, T* g, T* h = nullptr) {
    const long p = norm.p;
    with_act(act, [&](auto A) {
      for (long k = 0; k < p; k += kLanes) {
        Vec sum = {}, product = {};
        const Norm::Lanes lanes = norm.lanes(k);
        const Vec mean = load(&norm.mean[k]), rstd = load(&norm.rstd[k]);
        const Vec gain = gate ? load(gate + k) : Vec{} + 1.0f;
        const Vec add = dmean ? load(dmean + k) : Vec{};
        for (long r = 0; r < rows; ++r) {
          const long at = r * p + k;
          const Vec in = load(x + at);
          const Vec z = lanes(in);
          const Vec v = activate_backward<A.value>(z, load(dh + at) * gain + add);
          store(g + at, v);
          if (h != nullptr) store(h + at, activate<A.value>(z));
          sum += v;
          product += v * (in - mean);
        }
        product *= rstd;
        for (long i = 0; i < kLanes; ++i) {
          dbias[k + i] += sum[i];
          dscale[k + i] += product[i];
        }
      }
    });
  }

  // dx = slope * (g - (dbias + normed * dscale) / count), as a g + b x + c
  void use_sums(double count) {
    for (long k = 0; k < norm.p; ++k) {
      const double s = norm.slope[k], t = norm.rstd[k] * dscale[k] / count;
      a[k] = float(s);
      b[k] = float(-s * t);
      c[k] = float(s * (norm.mean[k] * t - dbias[k] / count));
    }
  }

  // After `use_sums`: x, cotangents g of norm(x) -> cotangents dx of x, all [rows, p]; dx may be g.
  template <class T, class Out>
  void input_backward(const T* x, const T* g, long rows, Out* dx) const {
    const long p = norm.p;
    for (long r = 0; r < rows; ++r)
      for (long k = 0; k < p; k += kLanes)
        store(dx + r * p + k,
              load(&a[k]) * load(g + r * p + k) + load(&b[k]) * load(x + r * p + k) + load(&c[k]));
  }

  const Norm& norm;
  std::vector<double> dscale, dbias;  // [p] each
  std::vector<float> a, b, c;         // [p] each
};

}  // namespace fnas
