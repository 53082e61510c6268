// A layer of a mobile network as layers/spec.py defines it, with its sizes as data.
//
// conv:       kxk - norm - act - (SE)
// separable:  [1x1 to `middle` - norm - act -] depthwise kxk - norm - act - (SE) - 1x1 - norm
// and to each, `skip` of the input is added.
//
// In comments on shapes, names with a capital are those of the arrays (`Slot`), others those of the
// child (`LayerSpec`), and c' is c rounded up to whole vectors. The passes stand in layer.cc, the
// stages of a conv in convolve.cc, those of the others in separable.cc: each with its derivative.
#pragma once

#include "batch_norm.h"
#include "depthwise.h"
#include "geometry.h"
#include "kept.h"
#include "products.h"
#include "squeeze_excite.h"
#include "vector.h"

namespace fnas {

enum Op { kPass = 0, kConv = 1, kSeparable = 2, kBottleneck = 3 };
enum Skip { kPool = 0, kIdentity = 1, kNoSkip = 2 };  // as in spec.py

// The arrays of a layer's parameters, in this order; absent ones are empty.
enum Param {
  kConvWeights = 0,             // [Kernel, Kernel, Cin, Cout]
  kExpandWeights,               // [Cin, Middle]
  kDepthwiseWeights,            // [Kernel, Kernel, Middle]
  kProjectWeights,              // [Middle, Cout]
  kScale,                       // of each normalisation: [Middle], [Middle], [Cout]
  kBias = kScale + kNorms,      // as scale
  kSqueezeW1 = kBias + kNorms,  // [Gated, Hidden]
  kSqueezeB1,                   // [Hidden]
  kSqueezeW2,                   // [Hidden, Gated]
  kSqueezeB2,                   // [Gated]
  kParams
};

// Rows of pixels that a stage takes at once, so that they stay in the cache.
constexpr long kRowsAtOnce = 256;

// What is the same for all children: sizes of the arrays, which hold the widest child.
struct Slot {
  long images, height, width, cin, cout, stride;
  long kernel;         // of the arrays of weights
  long middle;         // channels of the depthwise convolution
  long hidden, gated;  // of the arrays of squeeze-excitation
};

// What is the child's own, from a row of int32.
struct LayerSpec {
  explicit LayerSpec(const int* row)
      : op(row[0]),
        kernel(row[1]),
        cin(row[2]),
        middle(row[0] > kConv ? row[3] : 0),
        cout(row[4]),
        se_hidden(row[5]),
        skip(row[6]),
        act(row[7] % kActs),
        hard_gate(row[7] / kActs),
        root(row[8]) {}
  long op, kernel, cin, middle, cout;
  long se_hidden;  // units of squeeze-excitation, 0 without
  long skip, act;
  long hard_gate;  // 1: squeeze-excitation weighs by hard sigmoids
  long root;       // the input is data: nobody asks for its derivative
};

// Moments for an evaluation: those to use, or where to put the batch's. Channels as `kScale`.
struct Evaluation {
  const float* mean[kNorms];
  const float* var[kNorms];
  float* batch_mean[kNorms];
  float* batch_var[kNorms];
  bool collect;
};

// T: what the results of convolutions are kept as, and the factors of products
template <class T>
class Layer {
 public:
  // Throws std::invalid_argument where the child does not fit the slot.
  Layer(const Slot& slot, const LayerSpec& spec, const float* const* params);

  // Floats that a training pass keeps.
  long kept_size() const { return KeptOut::layout(kept_sizes(), nullptr).size; }

  // In training: x [images, in_pixels, Cin] -> y [images, out_pixels, Cout], `kept` [kept_size()].
  void forward(const float* x, float* y, float* kept);
  // dy, shape of y -> dx, shape of x, and dparams, shapes of params, which are zero before.
  void backward(const float* x, const float* kept, const float* dy, float* dx,
                float* const* dparams);
  // x, y as in `forward`
  void evaluate(const float* x, const Evaluation& evaluation, float* y);

 private:
  using KeptOut = Kept<T, float>;
  using KeptIn = Kept<const T, const float>;

  // Cotangents of a backward pass; those of `Kept` have its shapes.
  struct Gradients {
    float* x;              // [images, in_pixels, Cin]
    float* const* params;  // as `Param`
    T* expanded;           // [images, in_pixels, middle']
    T* filtered;           // [images, out_pixels, middle']
    T* out;                // [images, out_pixels, cout']
    NormGradient norm[kNorms];
  };

  bool fits_slot() const;
  // Channels of a normalisation, 0 where the layer has none.
  long channels(NormIndex n) const;
  long gated() const { return spec.op == kConv ? spec.cout : spec.middle; }
  // Squeeze-excitation follows the last convolution.
  bool gates_output() const { return spec.op == kConv && spec.se_hidden; }
  // Narrower rows take longer to prepare for tiles than to multiply.
  bool wide() const { return std::min(spec.cin, spec.cout) >= kTile; }
  KeptSizes kept_sizes() const;
  long images_at_once() const {
    return std::max(1L, std::min(slot.images, kRowsAtOnce / g.out_pixels()));
  }

  // The passes. `images`: number of those in x, from the start of `kept`.
  void run(const float* x, long images, const KeptOut& kept, const Evaluation* evaluation,
           float* y);
  void use_batch(NormIndex n, double count, const Evaluation* evaluation);
  void use_estimates(const Evaluation& evaluation);
  void store_gradient(NormIndex n, double count, Gradients& d);

  // The stages: each reads what comes before it in `Kept` and writes the next, and its derivative
  // goes the other way. x [images, in_pixels, Cin].
  void convolve(const float* x, long images, const KeptOut& kept);
  void convolve_backward(const float* x, Gradients& d);
  void convolve_dw(const float* x, Gradients& d) const;
  void convolve_dw_by_pairs(const float* x, Gradients& d) const;
  void convolve_dw_by_tiles(const float* x, Gradients& d) const;
  void convolve_dx(Gradients& d) const;

  void expand(const float* x, long images, const KeptOut& kept);
  void expand_backward(const float* x, const KeptIn& kept, Gradients& d);

  void filter(const float* x, long images, const KeptOut& kept);
  void filter_backward(const float* x, const KeptIn& kept, Gradients& d);

  void project(long images, const KeptOut& kept);
  void project_backward(const KeptIn& kept, Gradients& d);

  // y [images, out_pixels, Cout], dy alike
  void output(const float* x, long images, const KeptOut& kept, float* y);
  void output_backward(const KeptIn& kept, const float* dy, Gradients& d);

  // Of one image: x [in_pixels, Cin], y [out_pixels, ldy]
  void add_skip(const float* x, float* y, long ldy) const;
  void add_skip_backward(const float* dy, long ldy, float* dx) const;

  // Of one image: rows [out_pixels, gated'] before their normalisation -> `kept.gate`
  void squeeze_excite(const Norm& norm, const T* rows, long image, const KeptOut& kept);
  // dgate [gated'], which is overwritten -> what it adds to every pixel's cotangents [gated']
  const float* squeeze_excite_backward(const KeptIn& kept, long image, float* dgate, Gradients& d);
  SqueezeExcite squeeze_excite_params() const;

  // Of one image, with its padding: x -> padded [h.padded, w.padded, cin]
  template <class To>
  void pad_input(const float* x, long image, To* padded) const;
  // x or kept.expanded -> padded [h.padded, w.padded, middle'], what the depthwise convolution sees
  void pad_filter_input(const float* x, const T* expanded, long image, float* padded) const;

  // Of tap t of the child's kernel, which is the centre of the arrays': its place in these.
  long center_tap(long t) const;
  // The child's part of the weights -> [kernel, kernel, cin, cout'] or [kernel, kernel, middle']
  void conv_weights(float* weights) const;
  void phase_weights(long y_phase, long x_phase, float* weights) const;
  std::vector<Product<T>> phase_products() const;
  void store_conv_gradient(const float* dweights, long channels, Gradients& d) const;
  void depthwise_weights(float* weights) const;
  void store_depthwise_gradient(const float* dweights, Gradients& d) const;

  const Slot slot;
  const LayerSpec spec;
  const float* const* params;
  const Geometry g, pool;
  const long middle_pitch, out_pitch;
  Norm norms[kNorms];
  bool by_batch = true;  // normalisations use the batch's own moments
};

// Products of shorts are all that these do.
template <>
void Layer<Short>::convolve_dw_by_pairs(const float* x, Gradients& d) const;
template <>
void Layer<Short>::convolve_dw_by_tiles(const float* x, Gradients& d) const;

}  // namespace fnas
