// A layer of a mobile network as `children.blocks` defines it, with its sizes as data.
//
// conv:       kxk - norm - act - (SE)
// separable:  [1x1 to `mid` - norm - act -] depthwise kxk - norm - act - (SE) - 1x1 - norm
// and to each, `skip` of the input is added.
//
// What the forward pass keeps are the results of the convolutions, before their normalisation;
// everything else is computed again where it is needed, while it is in the cache.
#pragma once

#include <stdexcept>

#include "convolution.h"
#include "gemm.h"
#include "norm.h"

namespace fnas {

enum Op { kPass = 0, kConv = 1, kSeparable = 2, kBottleneck = 3 };
enum Skip { kPool = 0, kIdentity = 1, kNoSkip = 2 };  // blocks.SKIP_*
enum Place { kExpand = 0, kDepthwise = 1, kOut = 2 };  // of a normalisation, blocks.NORMS

// The arrays of a layer's parameters, in this order; absent ones are empty.
enum Name { kW, kWe, kWd, kWp, kScale, kBias = kScale + 3, kW1 = kBias + 3, kB1, kW2, kB2, kNames };

struct Shape {
  long batch, h, w, cin, cout;  // of input and output arrays, channels of the widest child
  long stride;
  long kernel;          // of the arrays of weights
  long middle;          // channels of the widest depthwise convolution
  long hidden, gated;   // of the arrays of squeeze-excitation
};

// The child's sizes, from an array of int32.
struct Sizes {
  explicit Sizes(const int* d)
      : op(d[0]), kernel(d[1]), cin(d[2]), mid(d[0] > kConv ? d[3] : 0), cout(d[4]), hidden(d[5]), skip(d[6]),
        act(d[7]), root(d[8]) {}
  long op, kernel, cin, mid, cout, hidden, skip, act;
  long root;  // nobody asks for the derivative of the input
};

struct Statistics {  // for evaluation: moments to use, or where to put the batch's
  const float* mean[3];
  const float* var[3];
  float* batch_mean[3];
  float* batch_var[3];
  bool collect;
};

class Layer {
 public:
  Layer(const Shape& shape, const Sizes& sizes, const float* const* params)
      : s(shape), d(sizes), p(params), g(shape.h, shape.w, sizes.kernel, shape.stride),
        pool(shape.h, shape.w, 3, shape.stride), mp(pitch(sizes.mid)), op_(pitch(sizes.cout)),
        norms{Norm(mp), Norm(mp), Norm(op_)} {
    const bool passes = s.stride == 1 && s.cin == s.cout;
    if (d.op == kPass ? !passes : !within())
      throw std::invalid_argument("sizes of a layer are out of range");
    for (int n = 0; n < 3; ++n) {
      if (!has(Place(n))) continue;
      const long c = n == kOut ? d.cout : d.mid;
      std::copy(p[kScale + n], p[kScale + n] + c, norms[n].scale.begin());
      std::copy(p[kBias + n], p[kBias + n] + c, norms[n].bias.begin());
    }
  }

  // Floats that a training pass keeps.
  long kept() const {
    const long in = s.batch * g.pixels(), out = s.batch * g.out_pixels();
    const long gp = pitch(gated());
    return in * mp * (d.op == kBottleneck) + out * mp * (d.op != kConv) + out * op_ +
           2 * (2 * mp + op_) + s.batch * (2 * gp + pitch(s.hidden));
  }

  void train(const float* x, float* y, float* kept);
  void evaluate(const float* x, const Statistics& statistics, float* y);
  // dparams are zero before.
  void backward(const float* x, float* kept, const float* dy, float* dx, float* const* dparams);

 private:
  struct Kept {
    float *expanded, *filtered, *out;  // results of the convolutions
    float *pooled, *unit, *gate;       // of squeeze-excitation
    float* moments;
  };

  bool within() const {
    return d.cin <= s.cin && d.cout <= s.cout && d.kernel <= std::min(s.kernel, kLargest) &&
           d.kernel % 2 == 1 && d.mid <= s.middle && d.hidden <= s.hidden &&
           (d.hidden == 0 || gated() <= s.gated) && (d.op != kSeparable || d.mid == d.cin) &&
           d.act >= kNone && d.act <= kRelu6;
  }
  bool has(Place n) const {
    return n == kOut || d.op == kBottleneck || (n == kDepthwise && d.op == kSeparable);
  }
  long gated() const { return d.op == kConv ? d.cout : d.mid; }
  long images_at_once() const { return std::max(1L, std::min(s.batch, 256 / g.out_pixels())); }
  Kept divide(float* memory) const;
  Excite excite() const {
    return {gated(), d.hidden, s.hidden, s.gated, p[kW1], p[kB1], p[kW2], p[kB2]};
  }

  void forward(const float* x, long batch, Kept k, const Statistics* statistics, float* y);
  void settle(Place n, double count, const Statistics* statistics);
  void convolve(const float* x, long batch, Kept k);
  void expand(const float* x, long batch, Kept k);
  void filter(const float* x, long batch, Kept k);
  void project(long batch, Kept k);
  void finish(const float* x, long batch, Kept k, float* y);
  void gates(const Norm& norm, const float* rows, long image, Kept k);

  void output_gradient(Kept k, const float* dy, float* dt, float* const* dp);
  void convolve_gradient(const float* x, const float* dt, float* dx, float* const* dp);
  void project_gradient(Kept k, const float* dt, float* dfiltered, NormGradient& norm,
                        float* const* dp);
  void filter_gradient(const float* x, Kept k, const NormGradient& outer, const float* dfiltered,
                       float* dexpanded, NormGradient* norm, float* dx, float* const* dp);
  void expand_gradient(const float* x, Kept k, const NormGradient& norm, const float* dexpanded,
                       float* dx, float* const* dp);
  void gate_gradient(Kept k, long image, float* dgate, float* const* dp, float* shift);
  void skip_gradient(const float* dy, float* dx);
  void deposit(Place n, const NormGradient& norm, float* const* dp) const;

  void padded_input(const float* x, long image, float* padded) const;
  // The child's part of the weights of full and depthwise convolutions, in rows of whole vectors.
  void conv_weights(float* out) const;
  void depthwise_weights(float* out) const;
  void dense(const float* w, long rows, long cols, long ld, float* out) const;

  const Shape s;
  const Sizes d;
  const float* const* p;
  const Geometry g, pool;
  const long mp, op_;
  Norm norms[3];
  bool collects = true;  // the batch's moments are needed
};

}  // namespace fnas
