// The convolutions of a separable layer: 1x1 to more channels, depthwise, 1x1 to the output.
#include "layer.h"

namespace fnas {

// ---- expand: x -> kept.expanded, some rows of pixels at once

template <class T>
void Layer<T>::expand(const float* x, long images, const KeptOut& kept) {
  float* weights = work().weights.get(spec.cin * middle_pitch);
  pad_rows(params[kExpandWeights], slot.middle, spec.cin, spec.middle, weights);
  const RowsTimes<T> product(wide(), weights, spec.cin, middle_pitch);
  const long rows = images * g.in_pixels();
  for (long r = 0; r < rows; r += kRowsAtOnce) {
    const long n = std::min(kRowsAtOnce, rows - r), size = n * middle_pitch;
    T* to = kept.expanded + r * middle_pitch;
    float* expanded = room_for(to, size);
    product(n, as_factors<T>(work().short_rows, x + r * slot.cin, slot.cin, n, spec.cin), expanded);
    keep(expanded, size, to);
    if (by_batch) norms[kExpand].collect(to, n);
  }
}

// d.expanded holds cotangents of the normalisation's result.
template <class T>
void Layer<T>::expand_backward(const float* x, const KeptIn& kept, Gradients& d) {
  const long in_pitch = pitch(spec.cin), rows = slot.images * g.in_pixels();
  float* transposed = work().transposed.get(spec.middle * in_pitch);
  transpose(params[kExpandWeights], slot.middle, spec.cin, spec.middle, transposed);
  float* dinput = work().dinput.get(kRowsAtOnce * in_pitch);
  const RowsTimes<T> product(wide(), transposed, spec.middle, in_pitch);
  Outer<T> dweights(wide(), spec.cin, middle_pitch);
  for (long r = 0; r < rows; r += kRowsAtOnce) {
    const long n = std::min(kRowsAtOnce, rows - r);
    T* dexpanded = factors<T>(work().drows, n * middle_pitch);
    d.norm[kExpand].input_backward(kept.expanded + r * middle_pitch, d.expanded + r * middle_pitch,
                                   n, dexpanded);
    dweights.add(n, as_factors<T>(work().short_rows, x + r * slot.cin, slot.cin, n, spec.cin),
                 dexpanded);
    product(n, {dexpanded, middle_pitch}, dinput);
    add_rows(dinput, in_pitch, n, spec.cin, d.x + r * slot.cin, slot.cin);
  }
  unpad_rows(dweights.sum, spec.cin, spec.middle, d.params[kExpandWeights], slot.middle);
}

// ---- filter: kept.expanded or x -> kept.filtered, image by image

template <class T>
void Layer<T>::filter(const float* x, long images, const KeptOut& kept) {
  float* weights = work().weights.get(spec.kernel * spec.kernel * middle_pitch);
  depthwise_weights(weights);
  float* padded = work().padded.zeros(g.padded_size(middle_pitch));
  for (long image = 0; image < images; ++image) {
    pad_filter_input(x, kept.expanded, image, padded);
    T* filtered = kept.filtered + image * g.out_pixels() * middle_pitch;
    depthwise(g, padded, weights, middle_pitch, filtered);
    if (by_batch) norms[kDepthwise].collect(filtered, g.out_pixels());
  }
}

// d.filtered holds cotangents of the normalisation's result.
template <class T>
void Layer<T>::filter_backward(const float* x, const KeptIn& kept, Gradients& d) {
  const long pixels = g.in_pixels(), out = g.out_pixels(), taps = spec.kernel * spec.kernel;
  const PaddedOutput layout(g);
  float* weights = work().weights.get(taps * middle_pitch);
  depthwise_weights(weights);
  float* padded = work().padded.zeros(g.padded_size(middle_pitch));
  float* dfiltered = work().padded_dfiltered.zeros(layout.size(middle_pitch));
  float* dweights = work().dweights.zeros(taps * middle_pitch);
  for (long image = 0; image < slot.images; ++image) {
    for (long i = 0; i < g.h.out; ++i) {
      const long row = (image * out + i * g.w.out) * middle_pitch;
      d.norm[kDepthwise].input_backward(kept.filtered + row, d.filtered + row, g.w.out,
                                        dfiltered + layout.row(i) * middle_pitch);
    }
    pad_filter_input(x, kept.expanded, image, padded);
    depthwise_dw(g, layout, padded, dfiltered, middle_pitch, dweights);
    const long size = pixels * middle_pitch;
    T* dexpanded = spec.op == kBottleneck ? d.expanded + image * size : nullptr;
    float* dinput = dexpanded ? room_for(dexpanded, size) : work().dinput.get(size);
    depthwise_dx(g, layout, dfiltered, weights, middle_pitch, dinput);
    if (dexpanded)
      d.norm[kExpand].norm_act_backward(spec.act, kept.expanded + image * size, pixels, nullptr,
                                        nullptr, dinput, dexpanded);
    else
      add_rows(dinput, middle_pitch, pixels, spec.cin, d.x + image * pixels * slot.cin, slot.cin);
  }
  store_depthwise_gradient(dweights, d);
}

template <class T>
void Layer<T>::pad_filter_input(const float* x, const T* expanded, long image,
                                float* padded) const {
  for (long i = 0; i < g.h.size; ++i) {
    const long row = image * g.in_pixels() + i * g.w.size;
    float* to = padded + g.inside(i, 0, middle_pitch);
    if (spec.op == kBottleneck)
      norm_act(norms[kExpand], spec.act, expanded + row * middle_pitch, g.w.size, nullptr, to);
    else
      pad_rows(x + row * slot.cin, slot.cin, g.w.size, spec.cin, to);
  }
}

template <class T>
void Layer<T>::depthwise_weights(float* weights) const {
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    pad_rows(params[kDepthwiseWeights] + center_tap(t) * slot.middle, slot.middle, 1, spec.middle,
             weights + t * middle_pitch);
}

template <class T>
void Layer<T>::store_depthwise_gradient(const float* dweights, Gradients& d) const {
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    unpad_rows(dweights + t * middle_pitch, 1, spec.middle,
               d.params[kDepthwiseWeights] + center_tap(t) * slot.middle, slot.middle);
}

// ---- project: kept.filtered -> kept.out, some images at once

template <class T>
void Layer<T>::project(long images, const KeptOut& kept) {
  float* weights = work().weights.get(spec.middle * out_pitch);
  pad_rows(params[kProjectWeights], slot.cout, spec.middle, spec.cout, weights);
  const long pixels = g.out_pixels(), group = images_at_once();
  const RowsTimes<T> product(wide(), weights, spec.middle, out_pitch);
  for (long image = 0; image < images; image += group) {
    const long n = std::min(group, images - image);
    T* rows = factors<T>(work().activations, n * pixels * middle_pitch);
    for (long i = 0; i < n; ++i) {
      const T* filtered = kept.filtered + (image + i) * pixels * middle_pitch;
      const float* gate = spec.se_hidden ? kept.gate + (image + i) * middle_pitch : nullptr;
      if (spec.se_hidden) squeeze_excite(norms[kDepthwise], filtered, image + i, kept);
      norm_act(norms[kDepthwise], spec.act, filtered, pixels, gate,
               rows + i * pixels * middle_pitch);
    }
    const long size = n * pixels * out_pitch;
    T* to = kept.out + image * pixels * out_pitch;
    float* out = room_for(to, size);
    product(n * pixels, {rows, middle_pitch}, out);
    keep(out, size, to);
    if (by_batch) norms[kOut].collect(to, n * pixels);
  }
}

// Writes to d.filtered cotangents of the normalisation's result.
template <class T>
void Layer<T>::project_backward(const KeptIn& kept, Gradients& d) {
  const long pixels = g.out_pixels(), group = images_at_once(), size = pixels * middle_pitch;
  float* transposed = work().transposed.get(spec.cout * middle_pitch);
  transpose(params[kProjectWeights], slot.cout, spec.middle, spec.cout, transposed);
  float* dgate = work().dgate.get(middle_pitch);
  const RowsTimes<T> product(wide(), transposed, spec.cout, middle_pitch);
  Outer<T> dweights(wide(), spec.middle, out_pitch);
  for (long image = 0; image < slot.images; image += group) {
    const long n = std::min(group, slot.images - image);
    T* rows = factors<T>(work().activations, n * size);
    const T* dout = d.out + image * pixels * out_pitch;
    T* dfiltered = d.filtered + image * size;
    float* drows = room_for(dfiltered, n * size);
    product(n * pixels, {dout, out_pitch}, drows);
    for (long i = 0; i < n; ++i) {
      const T* filtered = kept.filtered + (image + i) * size;
      const float* gate = spec.se_hidden ? kept.gate + (image + i) * middle_pitch : nullptr;
      const float* dmean = nullptr;
      T* h = rows + i * size;
      float* dh = drows + i * size;
      if (spec.se_hidden) {
        norm_act(norms[kDepthwise], spec.act, filtered, pixels, nullptr, h);
        gate_backward(h, dh, gate, pixels, middle_pitch, dgate);
        dmean = squeeze_excite_backward(kept, image + i, dgate, d);
      }
      d.norm[kDepthwise].norm_act_backward(spec.act, filtered, pixels, gate, dmean, dh,
                                           dfiltered + i * size, spec.se_hidden ? nullptr : h);
    }
    dweights.add(n * pixels, {rows, middle_pitch}, dout);
  }
  unpad_rows(dweights.sum, spec.middle, spec.cout, d.params[kProjectWeights], slot.cout);
}

template class Layer<float>;
template class Layer<Short>;

}  // namespace fnas
