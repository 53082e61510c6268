#include "layer.h"

#include <stdexcept>

#include "pool.h"
#include "workspace.h"

namespace fnas {

template <class T>
Layer<T>::Layer(const Slot& slot, const LayerSpec& spec, const float* const* params)
    : slot(slot),
      spec(spec),
      params(params),
      // To a 1x1 convolution an image is one row of pixels.
      g(spec.kernel == 1 && slot.stride == 1
            ? Geometry(1, slot.height * slot.width, 1, 1)
            : Geometry(slot.height, slot.width, spec.kernel, slot.stride)),
      pool(slot.height, slot.width, kPoolWindow, slot.stride),
      middle_pitch(pitch(spec.middle)),
      out_pitch(pitch(spec.cout)),
      norms{Norm(pitch(channels(kExpand))), Norm(pitch(channels(kDepthwise))),
            Norm(pitch(channels(kOut)))} {
  if (!fits_slot()) throw std::invalid_argument("sizes of a layer are out of range");
  for (int n = 0; n < kNorms; ++n) {
    const long c = channels(NormIndex(n));
    std::copy(params[kScale + n], params[kScale + n] + c, norms[n].scale.begin());
    std::copy(params[kBias + n], params[kBias + n] + c, norms[n].bias.begin());
  }
}

template <class T>
bool Layer<T>::fits_slot() const {
  if (spec.op == kPass) return slot.stride == 1 && slot.cin == slot.cout;
  return spec.cin <= slot.cin && spec.cout <= slot.cout && spec.middle <= slot.middle &&
         spec.kernel <= std::min(slot.kernel, kLargestKernel) && spec.kernel % 2 == 1 &&
         spec.se_hidden <= slot.hidden && (spec.se_hidden == 0 || gated() <= slot.gated) &&
         (spec.op != kSeparable || spec.middle == spec.cin) &&
         (spec.skip != kIdentity || slot.stride == 1) && spec.act >= kNone &&
         (spec.hard_gate == 0 || spec.hard_gate == 1);
}

template <class T>
long Layer<T>::channels(NormIndex n) const {
  if (n == kOut) return spec.op == kPass ? 0 : spec.cout;
  return n == kDepthwise || spec.op == kBottleneck ? spec.middle : 0;
}

template <class T>
KeptSizes Layer<T>::kept_sizes() const {
  return {slot.images,    g.in_pixels(),
          g.out_pixels(), {channels(kExpand), channels(kDepthwise), channels(kOut)},
          gated(),        slot.hidden};
}

// ---- passes

template <class T>
void Layer<T>::forward(const float* x, float* y, float* memory) {
  const auto kept = KeptOut::layout(kept_sizes(), memory);
  run(x, slot.images, kept, nullptr, y);
  for (int n = 0; n < kNorms; ++n) {
    std::copy(norms[n].mean.begin(), norms[n].mean.end(), kept.mean[n]);
    std::copy(norms[n].rstd.begin(), norms[n].rstd.end(), kept.rstd[n]);
  }
}

template <class T>
void Layer<T>::backward(const float* x, const float* memory, const float* dy, float* dx,
                        float* const* dparams) {
  const long in = slot.images * g.in_pixels(), out = slot.images * g.out_pixels();
  if (spec.op == kPass) {
    std::memcpy(dx, dy, in * slot.cin * sizeof(float));
    return;
  }
  const auto kept = KeptIn::layout(kept_sizes(), memory);
  for (int n = 0; n < kNorms; ++n) norms[n].restore(kept.mean[n], kept.rstd[n]);
  const long expanded = in * pitch(channels(kExpand)), filtered = out * pitch(channels(kDepthwise));
  T* whole = factors<T>(work().whole, expanded + filtered + out * out_pitch);
  Gradients d{dx,
              dparams,
              whole,
              whole + expanded,
              whole + expanded + filtered,
              {NormGradient(norms[0]), NormGradient(norms[1]), NormGradient(norms[2])}};
  std::memset(dx, 0, in * slot.cin * sizeof(float));
  output_backward(kept, dy, d);
  if (spec.op == kConv) return convolve_backward(x, d);
  project_backward(kept, d);
  store_gradient(kDepthwise, out, d);
  filter_backward(x, kept, d);
  if (spec.op != kBottleneck) return;
  store_gradient(kExpand, in, d);
  expand_backward(x, kept, d);
}

template <class T>
void Layer<T>::evaluate(const float* x, const Evaluation& evaluation, float* y) {
  by_batch = evaluation.collect;
  if (!by_batch) use_estimates(evaluation);
  const auto kept = KeptOut::layout(kept_sizes(), work().whole.get(kept_size()));
  // With moments that are known, a few images go through the whole layer while in the cache.
  const long group = by_batch ? slot.images : images_at_once();
  for (long image = 0; image < slot.images; image += group)
    run(x + image * g.in_pixels() * slot.cin, std::min(group, slot.images - image), kept,
        &evaluation, y + image * g.out_pixels() * slot.cout);
}

template <class T>
void Layer<T>::run(const float* x, long images, const KeptOut& kept, const Evaluation* evaluation,
                   float* y) {
  const double in = double(images) * g.in_pixels(), out = double(images) * g.out_pixels();
  if (spec.op == kPass) {
    std::memcpy(y, x, images * g.in_pixels() * slot.cin * sizeof(float));
    return;
  }
  if (spec.op == kConv) {
    convolve(x, images, kept);
  } else {
    if (spec.op == kBottleneck) {
      expand(x, images, kept);
      use_batch(kExpand, in, evaluation);
    }
    filter(x, images, kept);
    use_batch(kDepthwise, out, evaluation);
    project(images, kept);
  }
  use_batch(kOut, out, evaluation);
  output(x, images, kept, y);
}

// ---- moments and derivatives of normalisations

// Once a normalisation's sums over the `count` pixels of the batch are complete.
template <class T>
void Layer<T>::use_batch(NormIndex n, double count, const Evaluation* evaluation) {
  if (!by_batch) return;
  norms[n].use_sums(count);
  if (evaluation == nullptr) return;
  for (long c = 0; c < channels(n); ++c) {
    evaluation->batch_mean[n][c] = norms[n].mean[c];
    evaluation->batch_var[n][c] = norms[n].variance(c);
  }
}

template <class T>
void Layer<T>::use_estimates(const Evaluation& evaluation) {
  for (int n = 0; n < kNorms; ++n)
    for (long c = 0; c < channels(NormIndex(n)); ++c)
      norms[n].set(c, evaluation.mean[n][c], evaluation.var[n][c]);
}

// Once a normalisation's cotangents of the `count` pixels of the batch are summed.
template <class T>
void Layer<T>::store_gradient(NormIndex n, double count, Gradients& d) {
  d.norm[n].use_sums(count);
  const auto &dscale = d.norm[n].dscale, &dbias = d.norm[n].dbias;
  std::copy(dscale.begin(), dscale.begin() + channels(n), d.params[kScale + n]);
  std::copy(dbias.begin(), dbias.begin() + channels(n), d.params[kBias + n]);
}

// ---- the end of every layer: normalisation, activation and gate of the last result, and the skip

template <class T>
void Layer<T>::output(const float* x, long images, const KeptOut& kept, float* y) {
  const long pixels = g.out_pixels();
  const long act = spec.op == kConv ? spec.act : long(kNone);
  // Rows of y are whole vectors, in which channels beyond the child's become zero, if all are
  // finite.
  const bool whole = out_pitch == slot.cout;
  for (long image = 0; image < images; ++image) {
    const T* out = kept.out + image * pixels * out_pitch;
    float* to = y + image * pixels * slot.cout;
    float* rows = whole ? to : work().activations.get(pixels * out_pitch);
    const float* gate = gates_output() ? kept.gate + image * out_pitch : nullptr;
    if (gates_output()) squeeze_excite(norms[kOut], out, image, kept);
    norm_act(norms[kOut], act, out, pixels, gate, rows);
    add_skip(x + image * g.in_pixels() * slot.cin, rows, out_pitch);
    if (whole) continue;
    unpad_rows(rows, pixels, spec.cout, to, slot.cout);
    for (long r = 0; r < pixels; ++r)
      std::fill(to + r * slot.cout + spec.cout, to + (r + 1) * slot.cout, 0.0f);
  }
}

template <class T>
void Layer<T>::output_backward(const KeptIn& kept, const float* dy, Gradients& d) {
  const long pixels = g.out_pixels();
  const long act = spec.op == kConv ? spec.act : long(kNone);
  float* rows = work().activations.get(pixels * out_pitch);
  float* dgate = work().dgate.get(out_pitch);
  for (long image = 0; image < slot.images; ++image) {
    add_skip_backward(dy + image * pixels * slot.cout, slot.cout,
                      d.x + image * g.in_pixels() * slot.cin);
    const T* out = kept.out + image * pixels * out_pitch;
    const float* gate = gates_output() ? kept.gate + image * out_pitch : nullptr;
    const float* dmean = nullptr;
    T* dout = d.out + image * pixels * out_pitch;
    float* drows = room_for(dout, pixels * out_pitch);
    pad_rows(dy + image * pixels * slot.cout, slot.cout, pixels, spec.cout, drows);
    if (gates_output()) {
      norm_act(norms[kOut], act, out, pixels, nullptr, rows);
      gate_backward(rows, drows, gate, pixels, out_pitch, dgate);
      dmean = squeeze_excite_backward(kept, image, dgate, d);
    }
    d.norm[kOut].norm_act_backward(act, out, pixels, gate, dmean, drows, dout);
  }
  store_gradient(kOut, double(slot.images) * pixels, d);
  d.norm[kOut].input_backward(kept.out, d.out, slot.images * pixels, d.out);
}

template <class T>
void Layer<T>::add_skip(const float* x, float* y, long ldy) const {
  const long shared = std::min(spec.cin, spec.cout);
  if (spec.skip == kIdentity) add_rows(x, slot.cin, g.out_pixels(), shared, y, ldy);
  if (spec.skip == kPool) add_pooled(pool, x, slot.cin, shared, y, ldy);
}

template <class T>
void Layer<T>::add_skip_backward(const float* dy, long ldy, float* dx) const {
  const long shared = std::min(spec.cin, spec.cout);
  if (spec.skip == kIdentity) add_rows(dy, ldy, g.out_pixels(), shared, dx, slot.cin);
  if (spec.skip == kPool) add_pooled_backward(pool, dy, ldy, shared, dx, slot.cin);
}

// ---- squeeze-excitation

template <class T>
SqueezeExcite Layer<T>::squeeze_excite_params() const {
  return {gated(),
          spec.se_hidden,
          slot.hidden,
          slot.gated,
          spec.hard_gate == 1,
          params[kSqueezeW1],
          params[kSqueezeB1],
          params[kSqueezeW2],
          params[kSqueezeB2]};
}

template <class T>
void Layer<T>::squeeze_excite(const Norm& norm, const T* rows, long image, const KeptOut& kept) {
  const long p = norm.p;
  float *pooled = kept.pooled + image * p, *gate = kept.gate + image * p;
  mean_act(norm, spec.act, rows, g.out_pixels(), pooled);
  std::fill(gate, gate + p, 0.0f);
  squeeze_excite_params().forward(pooled, kept.units + image * pitch(slot.hidden), gate);
}

template <class T>
const float* Layer<T>::squeeze_excite_backward(const KeptIn& kept, long image, float* dgate,
                                               Gradients& d) {
  const long p = pitch(gated());
  float* dpooled = work().dpooled.zeros(p);
  squeeze_excite_params().backward(
      kept.pooled + image * p, kept.units + image * pitch(slot.hidden), kept.gate + image * p,
      dgate,
      {d.params[kSqueezeW1], d.params[kSqueezeB1], d.params[kSqueezeW2], d.params[kSqueezeB2]},
      dpooled);
  for (long c = 0; c < p; ++c) dpooled[c] /= float(g.out_pixels());
  return dpooled;
}

// ---- weights whose kernel is the centre of a larger one

template <class T>
long Layer<T>::center_tap(long t) const {
  const long margin = (slot.kernel - spec.kernel) / 2;
  return (margin + t / spec.kernel) * slot.kernel + margin + t % spec.kernel;
}

template class Layer<float>;
template class Layer<Short>;

}  // namespace fnas
