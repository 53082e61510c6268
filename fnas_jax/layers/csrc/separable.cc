// The convolutions of a separable layer: 1x1 to more channels, depthwise, 1x1 to the output.
#include "layer.h"

namespace fnas {

// ---- expand: x -> kept.expanded, some rows of pixels at once

void Layer::expand(const float* x, long images, const Kept<float>& kept) {
  float* weights = work().weights.get(spec.cin * middle_pitch);
  pad_rows(params[kExpandWeights], slot.middle, spec.cin, spec.middle, weights);
  const RowsTimes product(rows_by_tiles(), weights, spec.cin, middle_pitch);
  const long rows = images * g.in_pixels();
  for (long r = 0; r < rows; r += kRowsAtOnce) {
    const long n = std::min(kRowsAtOnce, rows - r);
    float* expanded = kept.expanded + r * middle_pitch;
    product(n, x + r * slot.cin, slot.cin, expanded);
    if (by_batch) norms[kExpand].collect(expanded, n);
  }
}

// d.expanded holds cotangents of the normalisation's result.
void Layer::expand_backward(const float* x, const KeptIn& kept, Gradients& d) {
  const long in_pitch = pitch(spec.cin), rows = slot.images * g.in_pixels();
  float* transposed = work().transposed.get(spec.middle * in_pitch);
  transpose(params[kExpandWeights], slot.middle, spec.cin, spec.middle, transposed);
  float* dexpanded = work().drows.get(kRowsAtOnce * middle_pitch);
  float* dinput = work().dinput.get(kRowsAtOnce * in_pitch);
  const RowsTimes product(rows_by_tiles(), transposed, spec.middle, in_pitch);
  Outer dweights(rows_by_tiles(), spec.cin, middle_pitch);
  for (long r = 0; r < rows; r += kRowsAtOnce) {
    const long n = std::min(kRowsAtOnce, rows - r);
    d.norm[kExpand].input_backward(kept.expanded + r * middle_pitch, d.expanded + r * middle_pitch,
                                   n, dexpanded);
    dweights.add(n, x + r * slot.cin, slot.cin, dexpanded);
    product(n, dexpanded, middle_pitch, dinput);
    add_rows(dinput, in_pitch, n, spec.cin, d.x + r * slot.cin, slot.cin);
  }
  unpad_rows(dweights.sum, spec.cin, spec.middle, d.params[kExpandWeights], slot.middle);
}

// ---- filter: kept.expanded or x -> kept.filtered, image by image

void Layer::filter(const float* x, long images, const Kept<float>& kept) {
  float* weights = work().weights.get(spec.kernel * spec.kernel * middle_pitch);
  depthwise_weights(weights);
  float* padded = work().padded.zeros(g.padded_size(middle_pitch));
  for (long image = 0; image < images; ++image) {
    pad_filter_input(x, kept.expanded, image, padded);
    float* filtered = kept.filtered + image * g.out_pixels() * middle_pitch;
    depthwise(g, padded, weights, middle_pitch, filtered);
    if (by_batch) norms[kDepthwise].collect(filtered, g.out_pixels());
  }
}

// d.filtered holds cotangents of the normalisation's result.
void Layer::filter_backward(const float* x, const KeptIn& kept, Gradients& d) {
  const long pixels = g.in_pixels(), out = g.out_pixels(), taps = spec.kernel * spec.kernel;
  const bool expands = spec.op == kBottleneck;
  const PaddedOutput layout(g);
  float* weights = work().weights.get(taps * middle_pitch);
  depthwise_weights(weights);
  float* padded = work().padded.zeros(g.padded_size(middle_pitch));
  float* dfiltered = work().padded_dfiltered.zeros(layout.size(middle_pitch));
  float* dinput = work().dinput.get(expands ? 0 : pixels * middle_pitch);
  float* dweights = work().dweights.zeros(taps * middle_pitch);
  for (long image = 0; image < slot.images; ++image) {
    for (long i = 0; i < g.h.out; ++i) {
      const long row = (image * out + i * g.w.out) * middle_pitch;
      d.norm[kDepthwise].input_backward(kept.filtered + row, d.filtered + row, g.w.out,
                                        dfiltered + layout.row(i) * middle_pitch);
    }
    pad_filter_input(x, kept.expanded, image, padded);
    depthwise_dw(g, layout, padded, dfiltered, middle_pitch, dweights);
    if (expands) {
      const long first = image * pixels * middle_pitch;
      depthwise_dx(g, layout, dfiltered, weights, middle_pitch, d.expanded + first);
      d.norm[kExpand].norm_act_backward(spec.act, kept.expanded + first, pixels, nullptr, nullptr,
                                        d.expanded + first);
    } else {
      depthwise_dx(g, layout, dfiltered, weights, middle_pitch, dinput);
      add_rows(dinput, middle_pitch, pixels, spec.cin, d.x + image * pixels * slot.cin, slot.cin);
    }
  }
  store_depthwise_gradient(dweights, d);
}

void Layer::pad_filter_input(const float* x, const float* expanded, long image,
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

void Layer::depthwise_weights(float* weights) const {
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    pad_rows(params[kDepthwiseWeights] + center_tap(t) * slot.middle, slot.middle, 1, spec.middle,
             weights + t * middle_pitch);
}

void Layer::store_depthwise_gradient(const float* dweights, Gradients& d) const {
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    unpad_rows(dweights + t * middle_pitch, 1, spec.middle,
               d.params[kDepthwiseWeights] + center_tap(t) * slot.middle, slot.middle);
}

// ---- project: kept.filtered -> kept.out, some images at once

void Layer::project(long images, const Kept<float>& kept) {
  float* weights = work().weights.get(spec.middle * out_pitch);
  pad_rows(params[kProjectWeights], slot.cout, spec.middle, spec.cout, weights);
  const long pixels = g.out_pixels(), group = images_at_once();
  float* rows = work().activations.get(group * pixels * middle_pitch);
  const RowsTimes product(rows_by_tiles(), weights, spec.middle, out_pitch);
  for (long image = 0; image < images; image += group) {
    const long n = std::min(group, images - image);
    for (long i = 0; i < n; ++i) {
      const float* filtered = kept.filtered + (image + i) * pixels * middle_pitch;
      const float* gate = spec.se_hidden ? kept.gate + (image + i) * middle_pitch : nullptr;
      if (spec.se_hidden) squeeze_excite(norms[kDepthwise], filtered, image + i, kept);
      norm_act(norms[kDepthwise], spec.act, filtered, pixels, gate,
               rows + i * pixels * middle_pitch);
    }
    float* out = kept.out + image * pixels * out_pitch;
    product(n * pixels, rows, middle_pitch, out);
    if (by_batch) norms[kOut].collect(out, n * pixels);
  }
}

// Writes to d.filtered cotangents of the normalisation's result.
void Layer::project_backward(const KeptIn& kept, Gradients& d) {
  const long pixels = g.out_pixels(), group = images_at_once(), size = pixels * middle_pitch;
  float* transposed = work().transposed.get(spec.cout * middle_pitch);
  transpose(params[kProjectWeights], slot.cout, spec.middle, spec.cout, transposed);
  float* rows = work().activations.get(group * size);
  float* dgate = work().dgate.get(middle_pitch);
  const RowsTimes product(rows_by_tiles(), transposed, spec.cout, middle_pitch);
  Outer dweights(rows_by_tiles(), spec.middle, out_pitch);
  for (long image = 0; image < slot.images; image += group) {
    const long n = std::min(group, slot.images - image);
    const float* dout = d.out + image * pixels * out_pitch;
    product(n * pixels, dout, out_pitch, d.filtered + image * size);
    for (long i = 0; i < n; ++i) {
      const float* filtered = kept.filtered + (image + i) * size;
      const float* gate = spec.se_hidden ? kept.gate + (image + i) * middle_pitch : nullptr;
      const float* dmean = nullptr;
      float *h = rows + i * size, *dh = d.filtered + (image + i) * size;
      norm_act(norms[kDepthwise], spec.act, filtered, pixels, nullptr, h);
      if (spec.se_hidden) {
        gate_backward(h, dh, gate, pixels, middle_pitch, dgate);
        dmean = squeeze_excite_backward(kept, image + i, dgate, d);
      }
      d.norm[kDepthwise].norm_act_backward(spec.act, filtered, pixels, gate, dmean, dh);
    }
    dweights.add(n * pixels, rows, middle_pitch, dout);
  }
  unpad_rows(dweights.sum, spec.middle, spec.cout, d.params[kProjectWeights], slot.cout);
}

}  // namespace fnas
