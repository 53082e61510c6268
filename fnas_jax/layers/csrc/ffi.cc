// The kernels as custom calls of XLA, and what Python asks before it calls them.
#include "xla/ffi/api/ffi.h"

#include <array>
#include <cstdint>
#include <memory>

#include "layer.h"
#include "workspace.h"

namespace ffi = xla::ffi;

namespace fnas {

namespace {

using Args = ffi::RemainingArgs;
using Rets = ffi::RemainingRets;

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

// Arguments of every call begin with x, the child's row and the parameters.
constexpr size_t kX = 0, kRow = 1, kFirstParam = 2, kRest = kFirstParam + kParams;

Slot slot_of(const Call& call, bool is_conv, int64_t stride, int64_t channels) {
  const size_t conv = kFirstParam + kConvWeights, depthwise = kFirstParam + kDepthwiseWeights;
  const size_t squeeze = kFirstParam + kSqueezeW1;
  const auto x = call.shape(kX);
  const bool has_depthwise = call.in_count(depthwise) > 0;
  Slot slot;
  slot.images = x[0];
  slot.height = x[1];
  slot.width = x[2];
  slot.cin = x[3];
  slot.cout = channels;
  slot.stride = stride;
  // A layer that passes its input on may hold neither.
  slot.kernel = is_conv ? call.shape(conv)[0] : has_depthwise ? call.shape(depthwise)[0] : 1;
  slot.middle = has_depthwise ? call.shape(depthwise)[2] : 0;
  slot.hidden = call.in_count(squeeze) ? call.shape(squeeze)[1] : 0;
  slot.gated = call.in_count(squeeze) ? call.shape(squeeze)[0] : 0;
  return slot;
}

// A layer and the pointers that it reads its parameters through.
struct BoundLayer {
  BoundLayer(const Call& call, int64_t stride, int64_t channels) {
    for (size_t i = 0; i < kParams; ++i) params[i] = call.in(kFirstParam + i);
    const LayerSpec spec(call.integers(kRow));
    const Slot slot = slot_of(call, spec.op == kConv, stride, channels);
    layer = std::make_unique<Layer>(slot, spec, params.data());
  }
  std::array<const float*, kParams> params;
  std::unique_ptr<Layer> layer;
};

template <class Body>
ffi::Error guarded(Body body) {
  try {
    const Lease lease;
    return body();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

}  // namespace

// x, row, params -> y, kept
ffi::Error Forward(Args args, Rets rets, int64_t stride, int64_t channels) {
  return guarded([&] {
    const Call call{args, rets};
    const BoundLayer bound(call, stride, channels);
    if (bound.layer->kept_size() > long(call.out_count(1)))
      return ffi::Error::Internal("the layer keeps more than there is room for");
    bound.layer->forward(call.in(kX), call.out(0), call.out(1));
    return ffi::Error::Success();
  });
}

// x, row, params, kept, dy -> dx, dparams
ffi::Error Backward(Args args, Rets rets, int64_t stride, int64_t channels) {
  return guarded([&] {
    const Call call{args, rets};
    const BoundLayer bound(call, stride, channels);
    std::array<float*, kParams> dparams;
    for (size_t i = 0; i < kParams; ++i) {
      dparams[i] = call.out(1 + i);
      std::memset(dparams[i], 0, call.in_count(kFirstParam + i) * sizeof(float));
    }
    bound.layer->backward(call.in(kX), call.in(kRest), call.in(kRest + 1), call.out(0),
                          dparams.data());
    return ffi::Error::Success();
  });
}

// x, row, params, 3 means, 3 variances, collect -> y, 3 means, 3 variances
ffi::Error Evaluate(Args args, Rets rets, int64_t stride, int64_t channels) {
  return guarded([&] {
    const Call call{args, rets};
    const BoundLayer bound(call, stride, channels);
    Evaluation evaluation;
    for (size_t n = 0; n < kNorms; ++n) {
      evaluation.mean[n] = call.in(kRest + n);
      evaluation.var[n] = call.in(kRest + kNorms + n);
      evaluation.batch_mean[n] = call.out(1 + n);
      evaluation.batch_var[n] = call.out(1 + kNorms + n);
      const size_t bytes = call.in_count(kRest + n) * sizeof(float);
      std::memset(evaluation.batch_mean[n], 0, bytes);
      std::memset(evaluation.batch_var[n], 0, bytes);
    }
    evaluation.collect = *call.integers(kRest + 2 * kNorms) != 0;
    bound.layer->evaluate(call.in(kX), evaluation, call.out(0));
    return ffi::Error::Success();
  });
}

#define FNAS_EXPORT(name)                                                                     \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                              \
      Fnas##name, name,                                                                       \
      ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<int64_t>("stride").Attr<int64_t>( \
          "channels"))

FNAS_EXPORT(Forward);
FNAS_EXPORT(Backward);
FNAS_EXPORT(Evaluate);

}  // namespace fnas

// Floats that the widest child of a slot keeps; a layer without depthwise convolution has `middle`
// 0, one without squeeze-excitation `hidden` 0.
extern "C" int64_t FnasKeptSize(int64_t images, int64_t in_pixels, int64_t out_pixels,
                                int64_t middle, int64_t cout, int64_t hidden) {
  const fnas::KeptSizes widest{
      images, in_pixels, out_pixels, {middle, middle, cout}, std::max(middle, cout), hidden};
  return fnas::Kept<float>::layout(widest, nullptr).size;
}
