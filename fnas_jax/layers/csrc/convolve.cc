// The full convolution of a layer: a matrix product for each row of pixels, which are read where
// they stand in an image with its padding.
#include "layer.h"

namespace fnas {

void Layer::convolve(const float* x, long images, const Kept<float>& kept) {
  const long run = spec.kernel * spec.cin;
  float* weights = work().weights.get(spec.kernel * run * out_pitch);
  conv_weights(weights);
  const long tiled = Product::tiled_size(spec.kernel, run, out_pitch);
  const Product product(weights, spec.kernel, run, out_pitch,
                        slot.tiles ? shorts(work().tiled_weights, tiled) : nullptr);
  float* padded = work().padded.zeros(g.padded_size(spec.cin));
  for (long image = 0; image < images; ++image) {
    pad_input(x, image, padded);
    const Pixels source = pixels(padded, g.padded_size(spec.cin));
    float* out = kept.out + image * g.out_pixels() * out_pitch;
    for (long i = 0; i < g.h.out; ++i)
      product(g.w.out, source, i * g.stride * g.w.padded * spec.cin, g.stride * spec.cin,
              g.w.padded * spec.cin, out + i * g.w.out * out_pitch);
    if (by_batch) norms[kOut].collect(out, g.out_pixels());
  }
}

void Layer::convolve_backward(const float* x, Gradients& d) {
  // Few channels would leave tiles empty.
  if (slot.tiles && slot.stride == 1 && spec.cin >= 4)
    convolve_dw_by_tiles(x, d);
  else
    convolve_dw(x, d);
  if (!spec.root) convolve_dx(d);
}

void Layer::convolve_dw(const float* x, Gradients& d) const {
  const long run = spec.kernel * spec.cin, row = g.w.padded * spec.cin, pixels = g.out_pixels();
  float* padded = work().padded.zeros(g.padded_size(spec.cin));
  float* dweights = work().dweights.zeros(spec.kernel * run * out_pitch);
  for (long image = 0; image < slot.images; ++image) {
    pad_input(x, image, padded);
    const float* dout = d.out + image * pixels * out_pitch;
    // Of kernel row k, what its taps meet: [kernel * cin, out_pixels]
    for (long k = 0; k < spec.kernel; ++k) {
      const Matrix met{padded + k * row, 1, g.stride * spec.cin, g.h.out, g.stride * row};
      add_gemm(run, out_pitch, pixels, met, dout, dweights + k * run * out_pitch);
    }
  }
  store_conv_gradient(dweights, spec.cin, d);
}

// Channels of the padded image are rows here. A tap of the kernel meets them from one place on, and
// cotangents stand at the same places, with zeros where there is no pixel of the output.
void Layer::convolve_dw_by_tiles(const float* x, Gradients& d) const {
  const long channels = tiles_of(spec.cin, kTile) * kTile, width = g.w.padded;
  const long places = g.h.padded * width, depth = tiles_of(g.h.out * width, kDepth);
  const long row =
      tiles_of((spec.kernel - 1) * (width + 1), kDepth) * kDepth + depth * kDepth + 2 * kDepth;
  float* padded = work().padded.zeros(g.padded_size(spec.cin));
  Short* rows = shorts(work().tiled_left, channels * row);
  std::memset(rows, 0, channels * row * sizeof(Short));
  float* dout = work().padded_dfiltered.zeros(g.h.out * width * out_pitch);
  Short* right = shorts(work().tiled_right, depth * out_pitch / kTile * kBlock);
  float* dweights = work().dweights.zeros(spec.kernel * spec.kernel * channels * out_pitch);
  use_tiles(kTile);
  for (long image = 0; image < slot.images; ++image) {
    pad_input(x, image, padded);
    channel_rows(padded, places, spec.cin, rows, row);
    for (long i = 0; i < g.h.out; ++i)
      std::memcpy(dout + i * width * out_pitch, d.out + (image * g.h.out + i) * g.w.out * out_pitch,
                  g.w.out * out_pitch * sizeof(float));
    tile_rows_of<false>(dout, out_pitch, g.h.out * width, out_pitch, right);
    for (long m = 0; m < channels; m += kTile)
      for (long n = 0; n < out_pitch; n += kTile)
        for (long k = 0; k < spec.kernel; ++k)
          taps_of_row(spec.kernel, depth, rows + m * row + k * width, row,
                      right + n / kTile * depth * kBlock,
                      dweights + (k * spec.kernel * channels + m) * out_pitch + n,
                      channels * out_pitch, out_pitch);
  }
  store_conv_gradient(dweights, channels, d);
}

// Pixels of a row of the input whose distance is the stride meet the same taps of the kernel, at
// neighbouring pixels of the output: they are one product with these taps' weights.
void Layer::convolve_dx(Gradients& d) const {
  const long in_pitch = pitch(spec.cin), c = spec.cout, stride = slot.stride;
  const PaddedOutput layout(g);
  const std::vector<Product> products = phase_products();
  float* dout = work().padded_dfiltered.zeros(layout.size(c));
  float* dinput = work().dinput.get(g.w.size * in_pitch);
  for (long image = 0; image < slot.images; ++image) {
    for (long i = 0; i < g.h.out; ++i)
      copy_rows(d.out + (image * g.h.out + i) * g.w.out * out_pitch, out_pitch, g.w.out, c,
                dout + layout.row(i) * c, c);
    const Pixels source = pixels(dout, layout.size(c));
    for (long i = 0; i < g.h.size; ++i)
      for (long first = 0; first < std::min(stride, g.w.size); ++first) {
        const Taps y(g.h, spec.kernel, stride, i), x(g.w, spec.kernel, stride, first);
        if (y.count == 0 || x.count == 0) continue;
        const long n = (g.w.size - first + stride - 1) / stride;
        products[y.phase * stride + x.phase](n, source, (layout.row(y.out) + x.out) * c, c,
                                             layout.width * c, dinput);
        add_rows(dinput, in_pitch, n, spec.cin,
                 d.x + ((image * g.h.size + i) * g.w.size + first) * slot.cin, stride * slot.cin);
      }
  }
}

// For the taps of each phase of the stride, [stride * stride]
std::vector<Product> Layer::phase_products() const {
  const long in_pitch = pitch(spec.cin), stride = slot.stride;
  const auto taps = [&](long phase) { return taps_of_phase(spec.kernel, stride, phase); };
  long tiled_size = 0;
  for (long y = 0; y < stride; ++y)
    for (long x = 0; x < stride; ++x)
      tiled_size += Product::tiled_size(taps(y), taps(x) * spec.cout, in_pitch);
  float* weights = work().weights.get(spec.kernel * spec.kernel * spec.cout * in_pitch);
  Short* tiled = slot.tiles ? shorts(work().tiled_weights, tiled_size) : nullptr;
  std::vector<Product> products;
  for (long y = 0; y < stride; ++y)
    for (long x = 0; x < stride; ++x) {
      const long run = taps(x) * spec.cout;
      phase_weights(y, x, weights);
      products.emplace_back(weights, taps(y), run, in_pitch, tiled);
      weights += taps(y) * run * in_pitch;
      if (tiled != nullptr) tiled += Product::tiled_size(taps(y), run, in_pitch);
    }
  return products;
}

// An image with its padding, of `size` numbers
Pixels Layer::pixels(const float* padded, long size) const {
  return {padded, slot.tiles ? shortened(work().short_rows, padded, size, 1, size) : nullptr};
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

// dweights [kernel * kernel, channels, cout'], of which the first are the child's
void Layer::store_conv_gradient(const float* dweights, long channels, Gradients& d) const {
  const long tap = slot.cin * slot.cout;
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    unpad_rows(dweights + t * channels * out_pitch, spec.cin, spec.cout,
               d.params[kConvWeights] + center_tap(t) * tap, slot.cout);
}

}  // namespace fnas
