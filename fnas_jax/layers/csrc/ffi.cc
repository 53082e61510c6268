// The kernels as custom calls of XLA, and what Python asks before it calls them.
#include "xla/ffi/api/ffi.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>

#include "layer.h"
#include "workspace.h"

namespace ffi = xla::ffi;

namespace fnas {

namespace {

using Args = ffi::RemainingArgs;
using Rets = ffi::RemainingRets;
using Ints = ffi::Span<const int64_t>;

struct Call {
  Args args;
  Rets rets;

  const float* in(size_t i) const {
    return static_cast<const float*>(args.get<ffi::AnyBuffer>(i)->untyped_data());
  }
  const int* integers(size_t i) const {
    return static_cast<const int*>(args.get<ffi::AnyBuffer>(i)->untyped_data());
  }
  auto shape(size_t i) const { return args.get<ffi::AnyBuffer>(i)->dimensions(); }
  size_t in_count(size_t i) const { return args.get<ffi::AnyBuffer>(i)->element_count(); }

  float* out(size_t i) const {
    return static_cast<float*>((*rets.get<ffi::AnyBuffer>(i))->untyped_data());
  }
  size_t out_count(size_t i) const { return (*rets.get<ffi::AnyBuffer>(i))->element_count(); }
};

// Arguments of every call begin with x, the child's row and the parameters, one behind the other.
constexpr size_t kX = 0, kRow = 1, kParameters = 2, kRest = 3;

// What Python knows of a layer before any child is there, `Layout` in kernels.py.
struct Layout {
  Ints offsets;  // [kParams + 1] of the parameters; the last is their number
  Ints sizes;    // as `slot_of` reads them
};

Slot slot_of(const Call& call, bool is_conv, int64_t stride, const Layout& layout) {
  const auto x = call.shape(kX);
  Slot slot;
  slot.images = x[0];
  slot.height = x[1];
  slot.width = x[2];
  slot.cin = x[3];
  slot.cout = layout.sizes[0];
  slot.stride = stride;
  // A layer that passes its input on may hold neither.
  slot.kernel = std::max<int64_t>(1, layout.sizes[is_conv ? 1 : 2]);
  slot.middle = layout.sizes[3];
  slot.gated = layout.sizes[4];
  slot.hidden = layout.sizes[5];
  return slot;
}

// A layer and the pointers that it reads its parameters through.
template <class T>
struct BoundLayer {
  BoundLayer(const Call& call, int64_t stride, const Layout& layout) {
    if (layout.offsets.size() != kParams + 1 ||
        size_t(layout.offsets[kParams]) != call.in_count(kParameters))
      throw std::invalid_argument("parameters are not those of the layer's layout");
    for (size_t i = 0; i < kParams; ++i) params[i] = call.in(kParameters) + layout.offsets[i];
    const LayerSpec spec(call.integers(kRow));
    layer = std::make_unique<Layer<T>>(slot_of(call, spec.op == kConv, stride, layout), spec,
                                       params.data());
  }
  std::array<const float*, kParams> params;
  std::unique_ptr<Layer<T>> layer;
};

// Calls `body` with the layer. The last of `layout.sizes` says whether it keeps and multiplies
// bfloat16 numbers.
template <class Body>
ffi::Error with_layer(const Call& call, int64_t stride, const Layout& layout, Body body) {
  try {
    const Lease lease;
    if (layout.sizes.size() != 7) throw std::invalid_argument("sizes of a layer are missing");
    if (layout.sizes[6]) return body(*BoundLayer<Short>(call, stride, layout).layer);
    return body(*BoundLayer<float>(call, stride, layout).layer);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

}  // namespace

// x, row, params -> y, kept
ffi::Error Forward(Args args, Rets rets, int64_t stride, Ints offsets, Ints sizes) {
  const Call call{args, rets};
  return with_layer(call, stride, {offsets, sizes}, [&](auto& layer) {
    if (layer.kept_size() > long(call.out_count(1)))
      return ffi::Error::Internal("the layer keeps more than there is room for");
    layer.forward(call.in(kX), call.out(0), call.out(1));
    return ffi::Error::Success();
  });
}

// x, row, params, kept, dy -> dx, dparams
ffi::Error Backward(Args args, Rets rets, int64_t stride, Ints offsets, Ints sizes) {
  const Call call{args, rets};
  return with_layer(call, stride, {offsets, sizes}, [&](auto& layer) {
    std::array<float*, kParams> dparams;
    for (size_t i = 0; i < kParams; ++i) dparams[i] = call.out(1) + offsets[i];
    std::memset(call.out(1), 0, call.out_count(1) * sizeof(float));
    layer.backward(call.in(kX), call.in(kRest), call.in(kRest + 1), call.out(0), dparams.data());
    return ffi::Error::Success();
  });
}

// x, row, params, means, variances, collect -> y, means, variances; those of all normalisations,
// one behind the other
ffi::Error Evaluate(Args args, Rets rets, int64_t stride, Ints offsets, Ints sizes) {
  const Call call{args, rets};
  return with_layer(call, stride, {offsets, sizes}, [&](auto& layer) {
    Evaluation evaluation;
    for (size_t n = 0; n < kNorms; ++n) {
      const int64_t first = offsets[kScale + n] - offsets[kScale];
      evaluation.mean[n] = call.in(kRest) + first;
      evaluation.var[n] = call.in(kRest + 1) + first;
      evaluation.batch_mean[n] = call.out(1) + first;
      evaluation.batch_var[n] = call.out(2) + first;
    }
    for (size_t i : {1, 2}) std::memset(call.out(i), 0, call.out_count(i) * sizeof(float));
    evaluation.collect = *call.integers(kRest + 2) != 0;
    layer.evaluate(call.in(kX), evaluation, call.out(0));
    return ffi::Error::Success();
  });
}

#define FNAS_EXPORT(name)                                    \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(Fnas##name, name,            \
                                ffi::Ffi::Bind()             \
                                    .RemainingArgs()         \
                                    .RemainingRets()         \
                                    .Attr<int64_t>("stride") \
                                    .Attr<Ints>("offsets")   \
                                    .Attr<Ints>("sizes"))

FNAS_EXPORT(Forward);
FNAS_EXPORT(Backward);
FNAS_EXPORT(Evaluate);

}  // namespace fnas

// Whether products of bfloat16 numbers are faster here than those of float32.
extern "C" int64_t FnasShortProducts() {
#if defined(__AVX512BF16__)
  return 1;
#else
  return 0;
#endif
}

// Floats that the widest child of a slot keeps; a layer without depthwise convolution has `middle`
// 0, one without squeeze-excitation `hidden` 0. `is_short`: results are kept as bfloat16 numbers.
extern "C" int64_t FnasKeptSize(int64_t images, int64_t in_pixels, int64_t out_pixels,
                                int64_t middle, int64_t cout, int64_t hidden, int64_t is_short) {
  const fnas::KeptSizes widest{
      images, in_pixels, out_pixels, {middle, middle, cout}, std::max(middle, cout), hidden};
  return is_short ? fnas::Kept<fnas::Short, float>::layout(widest, nullptr).size
                  : fnas::Kept<float, float>::layout(widest, nullptr).size;
}
