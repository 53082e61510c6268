// The kernels as custom calls of XLA.
#include <array>
#include <memory>

#include "layer.h"
#include "xla/ffi/api/ffi.h"

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
  float* out(size_t i) const {
    return static_cast<float*>((*rets.get<ffi::AnyBuffer>(i))->untyped_data());
  }
  auto shape(size_t i) const { return args.get<ffi::AnyBuffer>(i)->dimensions(); }
  size_t count(size_t i) const { return args.get<ffi::AnyBuffer>(i)->element_count(); }
};

// Arguments of every call begin with x, sizes and the parameters.
constexpr size_t kFirst = 2, kRest = kFirst + kNames;

Shape shape_of(const Call& call, bool is_full, int64_t stride, int64_t channels) {
  const auto x = call.shape(0), full = call.shape(kFirst + kW), deep = call.shape(kFirst + kWd);
  Shape s;
  s.batch = x[0], s.h = x[1], s.w = x[2], s.cin = x[3], s.cout = channels, s.stride = stride;
  const bool any_deep = call.count(kFirst + kWd) > 0;
  // A layer that passes its input on may hold neither.
  s.kernel = is_full ? full[0] : any_deep ? deep[0] : 1;
  s.middle = any_deep ? deep[2] : 0;
  s.hidden = call.count(kFirst + kW1) ? call.shape(kFirst + kW1)[1] : 0;
  s.gated = call.count(kFirst + kW1) ? call.shape(kFirst + kW1)[0] : 0;
  return s;
}

struct Bound {
  Bound(const Call& call, int64_t stride, int64_t channels) {
    for (size_t i = 0; i < kNames; ++i) params[i] = call.in(kFirst + i);
    const Sizes sizes(static_cast<const int*>(call.args.get<ffi::AnyBuffer>(1)->untyped_data()));
    const Shape shape = shape_of(call, sizes.op == kConv, stride, channels);
    layer = std::make_unique<Layer>(shape, sizes, params.data());
  }
  std::array<const float*, kNames> params;
  std::unique_ptr<Layer> layer;
};

template <class Body>
ffi::Error guarded(Body body) {
  try {
    return body();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

}  // namespace

// x, sizes, params -> y, kept
ffi::Error Train(Args args, Rets rets, int64_t stride, int64_t channels) {
  return guarded([&] {
    const Call call{args, rets};
    const Bound bound(call, stride, channels);
    if (bound.layer->kept() > long((*rets.get<ffi::AnyBuffer>(1))->element_count()))
      return ffi::Error::Internal("the layer keeps more than there is room for");
    bound.layer->train(call.in(0), call.out(0), call.out(1));
    return ffi::Error::Success();
  });
}

// x, sizes, params, kept, dy -> dx, dparams
ffi::Error Backward(Args args, Rets rets, int64_t stride, int64_t channels) {
  return guarded([&] {
    const Call call{args, rets};
    const Bound bound(call, stride, channels);
    std::array<float*, kNames> dparams;
    for (size_t i = 0; i < kNames; ++i) {
      dparams[i] = call.out(1 + i);
      std::memset(dparams[i], 0, call.count(kFirst + i) * sizeof(float));
    }
    bound.layer->backward(call.in(0), const_cast<float*>(call.in(kRest)), call.in(kRest + 1),
                          call.out(0), dparams.data());
    return ffi::Error::Success();
  });
}

// x, sizes, params, 3 means, 3 variances, collect -> y, 3 means, 3 variances
ffi::Error Evaluate(Args args, Rets rets, int64_t stride, int64_t channels) {
  return guarded([&] {
    const Call call{args, rets};
    const Bound bound(call, stride, channels);
    Statistics s;
    for (size_t n = 0; n < 3; ++n) {
      s.mean[n] = call.in(kRest + n), s.var[n] = call.in(kRest + 3 + n);
      s.batch_mean[n] = call.out(1 + n), s.batch_var[n] = call.out(4 + n);
      const size_t bytes = call.count(kRest + n) * sizeof(float);
      std::memset(s.batch_mean[n], 0, bytes), std::memset(s.batch_var[n], 0, bytes);
    }
    s.collect = *static_cast<const int*>(args.get<ffi::AnyBuffer>(kRest + 6)->untyped_data()) != 0;
    bound.layer->evaluate(call.in(0), s, call.out(0));
    return ffi::Error::Success();
  });
}

#define FNAS_EXPORT(name)                                          \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(Fnas##name, name,                  \
                                ffi::Ffi::Bind()                   \
                                    .RemainingArgs()               \
                                    .RemainingRets()               \
                                    .Attr<int64_t>("stride")       \
                                    .Attr<int64_t>("channels"))

FNAS_EXPORT(Train);
FNAS_EXPORT(Backward);
FNAS_EXPORT(Evaluate);

}  // namespace fnas
