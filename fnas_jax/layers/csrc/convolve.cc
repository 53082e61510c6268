// The full convolution of a layer: a matrix product for each row of pixels, which are read where
// they stand in an image with its padding.
#include "gemm.h"
#include "layer.h"
#include "workspace.h"

namespace fnas {

namespace {

// Of each pixel of a row of a padded image [.., c], what the kernel covers from row `first` on:
// [w.out, kernel * kernel * c].
Matrix patches(const Geometry& g, const float* padded, long c, long first) {
  const long row = g.w.padded * c;
  return {padded + first * row, g.stride * c, 1, g.kernel, row};
}

// Of kernel row k, what its taps meet: [kernel * c, out_pixels].
Matrix met(const Geometry& g, const float* padded, long c, long k) {
  const long row = g.w.padded * c;
  return {padded + k * row, 1, g.stride * c, g.h.out, g.stride * row};
}

}  // namespace

void Layer::convolve(const float* x, long images, const Kept<float>& kept) {
  const long depth = spec.kernel * spec.kernel * spec.cin, pixels = g.out_pixels();
  float* weights = work().weights.get(depth * out_pitch);
  conv_weights(weights);
  float* padded = work().padded.zeros(g.padded_size(spec.cin));
  for (long image = 0; image < images; ++image) {
    pad_input(x, image, padded);
    float* out = kept.out + image * pixels * out_pitch;
    for (long i = 0; i < g.h.out; ++i)
      gemm(g.w.out, out_pitch, depth, patches(g, padded, spec.cin, i * g.stride), weights,
           out + i * g.w.out * out_pitch);
    if (by_batch) norms[kOut].collect(out, pixels);
  }
}

void Layer::convolve_backward(const float* x, Gradients& d) {
  const long run = spec.kernel * spec.cin, pixels = g.out_pixels();
  float* padded = work().padded.zeros(g.padded_size(spec.cin));
  float* dweights = work().dweights.zeros(spec.kernel * run * out_pitch);
  for (long image = 0; image < slot.images; ++image) {
    pad_input(x, image, padded);
    const float* dout = d.out + image * pixels * out_pitch;
    for (long k = 0; k < spec.kernel; ++k)
      add_gemm(run, out_pitch, pixels, met(g, padded, spec.cin, k), dout,
               dweights + k * run * out_pitch);
  }
  store_conv_gradient(dweights, d);
  if (!spec.root) convolve_dx(d);
}

// Pixels of a row of the input whose distance is the stride meet the same taps of the kernel, at
// neighbouring pixels of the output: they are one product with these taps' weights.
void Layer::convolve_dx(Gradients& d) {
  const long in_pitch = pitch(spec.cin), c = spec.cout, stride = slot.stride;
  const long whole = spec.kernel * spec.kernel * c * in_pitch;
  const PaddedOutput layout(g);
  float* weights = work().weights.get(stride * stride * whole);
  float* dout = work().padded_dfiltered.zeros(layout.size(c));
  float* dinput = work().dinput.get(g.w.size * in_pitch);
  for (long y = 0; y < stride; ++y)
    for (long x = 0; x < stride; ++x) phase_weights(y, x, weights + (y * stride + x) * whole);
  for (long image = 0; image < slot.images; ++image) {
    for (long i = 0; i < g.h.out; ++i)
      copy_rows(d.out + (image * g.h.out + i) * g.w.out * out_pitch, out_pitch, g.w.out, c,
                dout + layout.row(i) * c, c);
    for (long i = 0; i < g.h.size; ++i)
      for (long first = 0; first < std::min(stride, g.w.size); ++first) {
        const Taps y(g.h, spec.kernel, stride, i), x(g.w, spec.kernel, stride, first);
        if (y.count == 0 || x.count == 0) continue;
        const long n = (g.w.size - first + stride - 1) / stride;
        const Matrix a{dout + (layout.row(y.out) + x.out) * c, c, 1, y.count, layout.width * c};
        gemm(n, in_pitch, y.count * x.count * c, a, weights + (y.phase * stride + x.phase) * whole,
             dinput);
        add_rows(dinput, in_pitch, n, spec.cin,
                 d.x + ((image * g.h.size + i) * g.w.size + first) * slot.cin, stride * slot.cin);
      }
  }
}

// Weights [cout, cin'] of the taps that pixels of a phase of the stride meet, in the order of
// `Taps`.
void Layer::phase_weights(long y_phase, long x_phase, float* weights) const {
  const long size = spec.cout * pitch(spec.cin);
  const long rows = taps_of_phase(spec.kernel, slot.stride, y_phase);
  const long columns = taps_of_phase(spec.kernel, slot.stride, x_phase);
  for (long i = rows - 1; i >= 0; --i)
    for (long j = columns - 1; j >= 0; --j, weights += size) {
      const long tap = (y_phase + i * slot.stride) * spec.kernel + x_phase + j * slot.stride;
      transpose(params[kConvWeights] + center_tap(tap) * slot.cin * slot.cout, slot.cout, spec.cin,
                spec.cout, weights);
    }
}

void Layer::pad_input(const float* x, long image, float* padded) const {
  x += image * g.in_pixels() * slot.cin;
  for (long i = 0; i < g.h.size; ++i, x += g.w.size * slot.cin)
    copy_rows(x, slot.cin, g.w.size, spec.cin, padded + g.inside(i, 0, spec.cin), spec.cin);
}

void Layer::conv_weights(float* weights) const {
  const long tap = slot.cin * slot.cout;
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    pad_rows(params[kConvWeights] + center_tap(t) * tap, slot.cout, spec.cin, spec.cout,
             weights + t * spec.cin * out_pitch);
}

void Layer::store_conv_gradient(const float* dweights, Gradients& d) const {
  const long tap = slot.cin * slot.cout;
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    unpad_rows(dweights + t * spec.cin * out_pitch, spec.cin, spec.cout,
               d.params[kConvWeights] + center_tap(t) * tap, slot.cout);
}

}  // namespace fnas
