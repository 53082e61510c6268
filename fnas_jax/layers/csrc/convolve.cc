// The full convolution of a layer: groups of images by im2col and a matrix product.
#include "gemm.h"
#include "im2col.h"
#include "layer.h"
#include "workspace.h"

namespace fnas {

void Layer::convolve(const float* x, long images, const Kept<float>& kept) {
  const long depth = spec.kernel * spec.kernel * spec.cin, pixels = g.out_pixels();
  const long group = images_at_once();
  float* weights = work().weights.get(depth * out_pitch);
  conv_weights(weights);
  const bool is_product = spec.kernel == 1 && slot.stride == 1;
  float* padded = work().padded.zeros(g.padded_size(spec.cin));
  float* patches = work().patches.get(is_product ? 0 : group * pixels * depth);
  for (long image = 0; image < images; image += group) {
    const long n = std::min(group, images - image);
    Matrix a{x + image * g.in_pixels() * slot.cin, slot.cin, 1};
    if (!is_product) {
      for (long i = 0; i < n; ++i) {
        pad_input(x, image + i, padded);
        im2col(g, padded, spec.cin, patches + i * pixels * depth);
      }
      a = {patches, depth, 1};
    }
    float* out = kept.out + image * pixels * out_pitch;
    gemm(n * pixels, out_pitch, depth, a, weights, out);
    if (by_batch) norms[kOut].collect(out, n * pixels);
  }
}

void Layer::convolve_backward(const float* x, Gradients& d) {
  const long depth = spec.kernel * spec.kernel * spec.cin, pixels = g.out_pixels();
  const long group = images_at_once(), dpatch = pitch(depth);
  float* weights = work().weights.get(depth * out_pitch);
  conv_weights(weights);
  float* transposed = work().transposed.get(spec.cout * dpatch);
  transpose(weights, out_pitch, depth, spec.cout, transposed);
  float* padded = work().padded.zeros(g.padded_size(spec.cin));
  float* patches = work().patches.get(group * pixels * depth);
  float* dpatches = work().dpatches.get(group * pixels * dpatch);
  float* dweights = work().dweights.zeros(depth * out_pitch);
  for (long image = 0; image < slot.images; image += group) {
    const long n = std::min(group, slot.images - image);
    for (long i = 0; i < n; ++i) {
      pad_input(x, image + i, padded);
      im2col(g, padded, spec.cin, patches + i * pixels * depth);
    }
    const float* dout = d.out + image * pixels * out_pitch;
    add_gemm(depth, out_pitch, n * pixels, {patches, 1, depth}, dout, dweights);
    if (spec.root) continue;
    gemm(n * pixels, dpatch, spec.cout, {dout, out_pitch, 1}, transposed, dpatches);
    for (long i = 0; i < n; ++i) add_patches(dpatches + i * pixels * dpatch, image + i, d);
  }
  store_conv_gradient(dweights, d);
}

void Layer::pad_input(const float* x, long image, float* padded) const {
  x += image * g.in_pixels() * slot.cin;
  for (long i = 0; i < g.h.size; ++i)
    for (long j = 0; j < g.w.size; ++j, x += slot.cin)
      std::memcpy(padded + g.inside(i, j, spec.cin), x, spec.cin * sizeof(float));
}

void Layer::add_patches(const float* dpatches, long image, Gradients& d) const {
  const long cin = spec.cin;
  float* dpadded = work().dpadded.zeros(g.padded_size(cin));
  col2im(g, dpatches, pitch(spec.kernel * spec.kernel * cin), cin, dpadded);
  float* dx = d.x + image * g.in_pixels() * slot.cin;
  for (long i = 0; i < g.h.size; ++i)
    add_rows(dpadded + g.inside(i, 0, cin), cin, g.w.size, cin, dx + i * g.w.size * slot.cin,
             slot.cin);
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
