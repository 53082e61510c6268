// The full convolution of a layer: a matrix product for each row of pixels, which are read where
// they stand in an image with its padding.
#include "layer.h"

namespace fnas {

template <class T>
void Layer<T>::convolve(const float* x, long images, const KeptOut& kept) {
  const long run = spec.kernel * spec.cin, size = g.out_pixels() * out_pitch;
  float* weights = work().weights.get(spec.kernel * run * out_pitch);
  conv_weights(weights);
  const long packed = Product<T>::packed_size(spec.kernel, run, out_pitch);
  const Product<T> product(weights, spec.kernel, run, out_pitch,
                           work().packed_weights.of<T>(packed));
  T* padded = work().padded.zeros_of<T>(g.padded_size(spec.cin) + kSlack);
  for (long image = 0; image < images; ++image) {
    pad_input(x, image, padded);
    T* to = kept.out + image * size;
    float* out = room_for(to, size);
    for (long i = 0; i < g.h.out; ++i)
      product(g.w.out, padded + i * g.stride * g.w.padded * spec.cin, g.stride * spec.cin,
              g.w.padded * spec.cin, out + i * g.w.out * out_pitch);
    keep(out, size, to);
    if (by_batch) norms[kOut].collect(to, g.out_pixels());
  }
}

// In float32, whatever T is: pairs of pixels would have to be neighbours.
template <class T>
void Layer<T>::convolve_dw(const float* x, Gradients& d) const {
  const long run = spec.kernel * spec.cin, row = g.w.padded * spec.cin, pixels = g.out_pixels();
  float* padded = work().padded.zeros(g.padded_size(spec.cin));
  float* dweights = work().dweights.zeros(spec.kernel * run * out_pitch);
  for (long image = 0; image < slot.images; ++image) {
    pad_input(x, image, padded);
    const float* dout = as_floats(d.out + image * pixels * out_pitch, pixels * out_pitch);
    // Of kernel row k, what its taps meet: [kernel * cin, out_pixels]
    for (long k = 0; k < spec.kernel; ++k) {
      const Matrix<float> met{padded + k * row, 1, g.stride * spec.cin, g.h.out, g.stride * row};
      add_gemm(run, out_pitch, pixels, met, dout, dweights + k * run * out_pitch);
    }
  }
  store_conv_gradient(dweights, spec.cin, d);
}

// An image with its padding is a row of pixels here. A tap of the kernel meets them from one place
// on, and cotangents stand at the same places, with zeros where there is no pixel of the output.
// Pairs of pixels begin at even places or, for every second tap, at odd ones.
template <>
void Layer<Short>::convolve_dw_by_pairs(const float* x, Gradients& d) const {
  const long cin = spec.cin, width = g.w.padded, places = g.h.padded * width;
  const long pairs = pairs_of(g.h.out * width), beyond = places + spec.kernel + 1;
  const long row_size = g.w.out * out_pitch;
  Short* padded = work().padded.zeros_of<Short>(beyond * cin + kSlack);
  Short* met[2] = {factors<Short>(work().packed_left, 2 * pairs_of(beyond) * cin),
                   factors<Short>(work().packed_odd, 2 * pairs_of(beyond) * cin)};
  Short* dout = work().padded_dfiltered.zeros_of<Short>(g.h.out * width * out_pitch);
  Short* right = factors<Short>(work().packed_right, 2 * pairs * out_pitch);
  float* dweights = work().dweights.zeros(spec.kernel * spec.kernel * cin * out_pitch);
  for (long image = 0; image < slot.images; ++image) {
    pad_input(x, image, padded);
    for (long odd : {0, 1}) interleave(padded + odd * cin, cin, beyond - odd, cin, met[odd]);
    copy_rows(d.out + image * g.h.out * row_size, row_size, g.h.out, row_size, dout,
              width * out_pitch);
    interleave(dout, out_pitch, g.h.out * width, out_pitch, right);
    for (long t = 0; t < spec.kernel * spec.kernel; ++t) {
      const long first = t / spec.kernel * width + t % spec.kernel;
      const Matrix<Short> taps{met[first % 2] + first / 2 * 2 * cin, 2, 2 * cin};
      add_gemm(cin, out_pitch, pairs, taps, right, dweights + t * cin * out_pitch);
    }
  }
  store_conv_gradient(dweights, cin, d);
}

// Channels of the padded image are rows here. A tap of the kernel meets them from one place on, and
// cotangents stand at the same places, with zeros where there is no pixel of the output.
template <>
void Layer<Short>::convolve_dw_by_tiles(const float* x, Gradients& d) const {
  const long channels = tiles_of(spec.cin, kTile) * kTile, width = g.w.padded;
  const long places = g.h.padded * width, depth = tiles_of(g.h.out * width, kDepth);
  const long row_size = g.w.out * out_pitch;
  const long row =
      tiles_of((spec.kernel - 1) * (width + 1), kDepth) * kDepth + depth * kDepth + 2 * kDepth;
  Short* padded = work().padded.zeros_of<Short>(g.padded_size(spec.cin));
  Short* rows = work().packed_left.zeros_of<Short>(channels * row);
  Short* dout = work().padded_dfiltered.zeros_of<Short>(g.h.out * width * out_pitch);
  Short* right = work().packed_right.of<Short>(depth * out_pitch / kTile * kBlock);
  float* dweights = work().dweights.zeros(spec.kernel * spec.kernel * channels * out_pitch);
  use_tiles(kTile);
  for (long image = 0; image < slot.images; ++image) {
    pad_input(x, image, padded);
    channel_rows(padded, places, spec.cin, rows, row);
    copy_rows(d.out + image * g.h.out * row_size, row_size, g.h.out, row_size, dout,
              width * out_pitch);
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

template <class T>
void Layer<T>::convolve_backward(const float* x, Gradients& d) {
  constexpr bool floats = std::is_same_v<T, float>;
  // With a stride, pixels that meet a tap are no neighbours; few channels leave registers empty.
  if (floats || slot.stride > 1 || spec.cin < 4)
    convolve_dw(x, d);
  else if constexpr (!floats)
    tiles_available() ? convolve_dw_by_tiles(x, d) : convolve_dw_by_pairs(x, d);
  if (!spec.root) convolve_dx(d);
}

// Pixels of a row of the input whose distance is the stride meet the same taps of the kernel, at
// neighbouring pixels of the output: they are one product with these taps' weights.
template <class T>
void Layer<T>::convolve_dx(Gradients& d) const {
  const long in_pitch = pitch(spec.cin), c = spec.cout, stride = slot.stride;
  const PaddedOutput layout(g);
  const std::vector<Product<T>> products = phase_products();
  T* dout = work().padded_dfiltered.zeros_of<T>(layout.size(c) + kSlack);
  float* dinput = work().dinput.get(g.w.size * in_pitch);
  for (long image = 0; image < slot.images; ++image) {
    for (long i = 0; i < g.h.out; ++i)
      copy_rows(d.out + (image * g.h.out + i) * g.w.out * out_pitch, out_pitch, g.w.out, c,
                dout + layout.row(i) * c, c);
    for (long i = 0; i < g.h.size; ++i)
      for (long first = 0; first < std::min(stride, g.w.size); ++first) {
        const Taps y(g.h, spec.kernel, stride, i), x(g.w, spec.kernel, stride, first);
        if (y.count == 0 || x.count == 0) continue;
        const long n = (g.w.size - first + stride - 1) / stride;
        products[y.phase * stride + x.phase](n, dout + (layout.row(y.out) + x.out) * c, c,
                                             layout.width * c, dinput);
        add_rows(dinput, in_pitch, n, spec.cin,
                 d.x + ((image * g.h.size + i) * g.w.size + first) * slot.cin, stride * slot.cin);
      }
  }
}

// For the taps of each phase of the stride, [stride * stride]
template <class T>
std::vector<Product<T>> Layer<T>::phase_products() const {
  const long in_pitch = pitch(spec.cin), stride = slot.stride;
  const auto taps = [&](long phase) { return taps_of_phase(spec.kernel, stride, phase); };
  long size = 0;
  for (long y = 0; y < stride; ++y)
    for (long x = 0; x < stride; ++x)
      size += Product<T>::packed_size(taps(y), taps(x) * spec.cout, in_pitch);
  float* weights = work().weights.get(spec.kernel * spec.kernel * spec.cout * in_pitch);
  T* packed = work().packed_weights.of<T>(size);
  std::vector<Product<T>> products;
  for (long y = 0; y < stride; ++y)
    for (long x = 0; x < stride; ++x) {
      const long run = taps(x) * spec.cout;
      phase_weights(y, x, weights);
      products.emplace_back(weights, taps(y), run, in_pitch, packed);
      weights += taps(y) * run * in_pitch;
      packed += Product<T>::packed_size(taps(y), run, in_pitch);
    }
  return products;
}

// Weights [cout, cin'] of the taps that pixels of a phase of the stride meet, in the order of
// `Taps`.
template <class T>
void Layer<T>::phase_weights(long y_phase, long x_phase, float* weights) const {
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

template <class T>
template <class To>
void Layer<T>::pad_input(const float* x, long image, To* padded) const {
  x += image * g.in_pixels() * slot.cin;
  for (long i = 0; i < g.h.size; ++i, x += g.w.size * slot.cin)
    copy_rows(x, slot.cin, g.w.size, spec.cin, padded + g.inside(i, 0, spec.cin), spec.cin);
}

template <class T>
void Layer<T>::conv_weights(float* weights) const {
  const long tap = slot.cin * slot.cout;
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    pad_rows(params[kConvWeights] + center_tap(t) * tap, slot.cout, spec.cin, spec.cout,
             weights + t * spec.cin * out_pitch);
}

// dweights [kernel * kernel, channels, cout'], of which the first are the child's
template <class T>
void Layer<T>::store_conv_gradient(const float* dweights, long channels, Gradients& d) const {
  const long tap = slot.cin * slot.cout;
  for (long t = 0; t < spec.kernel * spec.kernel; ++t)
    unpad_rows(dweights + t * channels * out_pitch, spec.cin, spec.cout,
               d.params[kConvWeights] + center_tap(t) * tap, slot.cout);
}

template class Layer<float>;
template class Layer<Short>;

}  // namespace fnas
