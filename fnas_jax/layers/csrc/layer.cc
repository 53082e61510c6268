#include "layer.h"

namespace fnas {

namespace {

struct Workspace {
  Scratch weights, turned, padded, patches, rows, more, gradient, dfiltered, dexpanded, kept;
};
thread_local Workspace work;

}  // namespace

Layer::Kept Layer::divide(float* memory) const {
  const long in = s.batch * g.pixels(), out = s.batch * g.out_pixels(), gp = pitch(gated());
  Kept k;
  auto take = [&](long size) {
    float* start = memory;
    memory += size;
    return start;
  };
  k.expanded = take(in * mp * (d.op == kBottleneck));
  k.filtered = take(out * mp * (d.op != kConv));
  k.out = take(out * op_);
  k.moments = take(2 * (2 * mp + op_));
  k.pooled = take(s.batch * gp);
  k.gate = take(s.batch * gp);
  k.unit = take(s.batch * pitch(s.hidden));
  return k;
}

void Layer::dense(const float* w, long rows, long cols, long ld, float* out) const {
  const long p = pitch(cols);
  for (long r = 0; r < rows; ++r, w += ld, out += p) {
    std::memcpy(out, w, cols * sizeof(float));
    std::fill(out + cols, out + p, 0.0f);
  }
}

void Layer::conv_weights(float* out) const {
  const long margin = (s.kernel - d.kernel) / 2, run = d.cin * op_;
  for (long t = 0; t < d.kernel * d.kernel; ++t) {
    const long y = margin + t / d.kernel, x = margin + t % d.kernel;
    dense(p[kW] + (y * s.kernel + x) * s.cin * s.cout, d.cin, d.cout, s.cout, out + t * run);
  }
}

void Layer::depthwise_weights(float* out) const {
  const long margin = (s.kernel - d.kernel) / 2;
  for (long t = 0; t < d.kernel * d.kernel; ++t) {
    const long y = margin + t / d.kernel, x = margin + t % d.kernel;
    dense(p[kWd] + (y * s.kernel + x) * s.middle, 1, d.mid, s.middle, out + t * mp);
  }
}

void Layer::padded_input(const float* x, long image, float* padded) const {
  x += image * g.pixels() * s.cin;
  for (long i = 0; i < g.h.size; ++i)
    for (long j = 0; j < g.w.size; ++j, x += s.cin)
      std::memcpy(padded + g.inside(i, j, d.cin), x, d.cin * sizeof(float));
}

// ---- forward

void Layer::train(const float* x, float* y, float* memory) {
  const Kept k = divide(memory);
  forward(x, s.batch, k, nullptr, y);
  float* at = k.moments;
  for (const Norm& norm : norms) {
    std::copy(norm.mean.begin(), norm.mean.end(), at);
    std::copy(norm.rstd.begin(), norm.rstd.end(), at + norm.p);
    at += 2 * norm.p;
  }
}

void Layer::evaluate(const float* x, const Statistics& statistics, float* y) {
  const Kept k = divide(work.kept.get(kept()));
  collects = statistics.collect;
  if (!collects)
    for (int n = 0; n < 3; ++n) settle(Place(n), 0, &statistics);
  // With moments that are known, a few images go through the whole layer while in the cache.
  const long at_once = statistics.collect ? s.batch : images_at_once();
  for (long image = 0; image < s.batch; image += at_once)
    forward(x + image * g.pixels() * s.cin, std::min(at_once, s.batch - image), k, &statistics,
            y + image * g.out_pixels() * s.cout);
}

void Layer::forward(const float* x, long batch, Kept k, const Statistics* statistics, float* y) {
  const double in = double(batch) * g.pixels(), out = double(batch) * g.out_pixels();
  if (d.op == kPass) {
    std::memcpy(y, x, batch * g.pixels() * s.cin * sizeof(float));
    return;
  }
  auto after = [&](Place n, double count) {
    if (collects) settle(n, count, statistics);
  };
  if (d.op == kConv) {
    convolve(x, batch, k);
  } else {
    if (d.op == kBottleneck) expand(x, batch, k), after(kExpand, in);
    filter(x, batch, k), after(kDepthwise, out);
    project(batch, k);
  }
  after(kOut, out);
  finish(x, batch, k, y);
}

void Layer::settle(Place n, double count, const Statistics* statistics) {
  if (!has(n)) return;
  Norm& norm = norms[n];
  const long channels = n == kOut ? d.cout : d.mid;
  if (count > 0) {
    norm.use_batch(count);
    if (statistics == nullptr) return;
    for (long c = 0; c < channels; ++c) {
      statistics->batch_mean[n][c] = norm.mean[c];
      statistics->batch_var[n][c] = norm.variance(c);
    }
  } else {
    for (long c = 0; c < channels; ++c) norm.set(c, statistics->mean[n][c], statistics->var[n][c]);
  }
}

void Layer::convolve(const float* x, long batch, Kept k) {
  const long depth = d.kernel * d.kernel * d.cin, pixels = g.out_pixels(), group = images_at_once();
  float* weights = work.weights.get(depth * op_);
  conv_weights(weights);
  const bool direct = d.kernel == 1 && g.stride == 1;
  float* padded = work.padded.zeros(g.padded_size(d.cin));
  float* patches = work.patches.get(direct ? 0 : group * pixels * depth);
  for (long image = 0; image < batch; image += group) {
    const long images = std::min(group, batch - image);
    Matrix a{x + image * g.pixels() * s.cin, s.cin, 1};
    if (!direct) {
      for (long i = 0; i < images; ++i) {
        padded_input(x, image + i, padded);
        gather_patches(g, padded, d.cin, patches + i * pixels * depth);
      }
      a = {patches, depth, 1};
    }
    float* out = k.out + image * pixels * op_;
    gemm(images * pixels, op_, depth, a, weights, op_, out, op_, false);
    if (collects) norms[kOut].collect(out, images * pixels);
  }
}

void Layer::expand(const float* x, long batch, Kept k) {
  float* weights = work.weights.get(d.cin * mp);
  dense(p[kWe], d.cin, d.mid, s.middle, weights);
  const long rows = batch * g.pixels();
  for (long r = 0; r < rows; r += 256) {
    const long n = std::min(256L, rows - r);
    float* out = k.expanded + r * mp;
    gemm(n, mp, d.cin, {x + r * s.cin, s.cin, 1}, weights, mp, out, mp, false);
    if (collects) norms[kExpand].collect(out, n);
  }
}

void Layer::filter(const float* x, long batch, Kept k) {
  float* weights = work.weights.get(d.kernel * d.kernel * mp);
  depthwise_weights(weights);
  float* padded = work.padded.zeros(g.padded_size(mp));
  for (long image = 0; image < batch; ++image) {
    for (long i = 0; i < g.h.size; ++i) {
      const long row = image * g.pixels() + i * g.w.size;
      float* to = padded + g.inside(i, 0, mp);
      if (d.op == kBottleneck)
        norm_act(norms[kExpand], d.act, k.expanded + row * mp, g.w.size, nullptr, to);
      else
        dense(x + row * s.cin, g.w.size, d.cin, s.cin, to);
    }
    float* out = k.filtered + image * g.out_pixels() * mp;
    depthwise(g, padded, weights, mp, out);
    if (collects) norms[kDepthwise].collect(out, g.out_pixels());
  }
}

void Layer::gates(const Norm& norm, const float* rows, long image, Kept k) {
  const long gp = norm.p;
  float *pooled = k.pooled + image * gp, *gate = k.gate + image * gp;
  mean_act(norm, d.act, rows, g.out_pixels(), pooled);
  std::fill(gate, gate + gp, 0.0f);
  excite().forward(pooled, k.unit + image * pitch(s.hidden), gate);
}

void Layer::project(long batch, Kept k) {
  float* weights = work.weights.get(d.mid * op_);
  dense(p[kWp], d.mid, d.cout, s.cout, weights);
  const long pixels = g.out_pixels(), group = images_at_once();
  float* rows = work.rows.get(group * pixels * mp);
  for (long image = 0; image < batch; image += group) {
    const long images = std::min(group, batch - image);
    for (long i = image; i < image + images; ++i) {
      const float* filtered = k.filtered + i * pixels * mp;
      if (d.hidden) gates(norms[kDepthwise], filtered, i, k);
      norm_act(norms[kDepthwise], d.act, filtered, pixels, d.hidden ? k.gate + i * mp : nullptr,
               rows + (i - image) * pixels * mp);
    }
    float* out = k.out + image * pixels * op_;
    gemm(images * pixels, op_, d.mid, {rows, mp, 1}, weights, op_, out, op_, false);
    if (collects) norms[kOut].collect(out, images * pixels);
  }
}

void Layer::finish(const float* x, long batch, Kept k, float* y) {
  const long pixels = g.out_pixels(), shared = std::min(d.cin, d.cout);
  const long act = d.op == kConv ? d.act : long(kNone);
  const bool gated = d.op == kConv && d.hidden;
  float* rows = work.rows.get(pixels * op_);
  for (long image = 0; image < batch; ++image, y += pixels * s.cout, x += g.pixels() * s.cin) {
    const float* out = k.out + image * pixels * op_;
    if (gated) gates(norms[kOut], out, image, k);
    norm_act(norms[kOut], act, out, pixels, gated ? k.gate + image * op_ : nullptr, rows);
    if (d.skip == kIdentity)
      for (long r = 0; r < pixels; ++r)
        for (long c = 0; c < shared; ++c) rows[r * op_ + c] += x[r * s.cin + c];
    if (d.skip == kPool)
      for_each_pooled(pool, [&](long from, long to, float share) {
        for (long c = 0; c < shared; ++c) rows[to * op_ + c] += share * x[from * s.cin + c];
      });
    for (long r = 0; r < pixels; ++r) {
      std::memcpy(y + r * s.cout, rows + r * op_, d.cout * sizeof(float));
      std::fill(y + r * s.cout + d.cout, y + (r + 1) * s.cout, 0.0f);
    }
  }
}

// ---- backward

void Layer::backward(const float* x, float* memory, const float* dy, float* dx, float* const* dp) {
  const long in = s.batch * g.pixels(), out = s.batch * g.out_pixels();
  if (d.op == kPass) {
    std::memcpy(dx, dy, in * s.cin * sizeof(float));
    return;
  }
  const Kept k = divide(memory);
  const float* at = k.moments;
  for (Norm& norm : norms) {
    std::copy(at, at + norm.p, norm.mean.begin());
    std::copy(at + norm.p, at + 2 * norm.p, norm.rstd.begin());
    for (long c = 0; c < norm.p; ++c) norm.slope[c] = norm.scale[c] * norm.rstd[c];
    at += 2 * norm.p;
  }
  std::memset(dx, 0, in * s.cin * sizeof(float));
  skip_gradient(dy, dx);
  float* dt = work.gradient.get(out * op_);
  output_gradient(k, dy, dt, dp);
  if (d.op == kConv) return convolve_gradient(x, dt, dx, dp);
  float* dfiltered = work.dfiltered.get(out * mp);
  NormGradient outer(norms[kDepthwise]), inner(norms[kExpand]);
  project_gradient(k, dt, dfiltered, outer, dp);
  outer.finish(out);
  deposit(kDepthwise, outer, dp);
  const bool expands = d.op == kBottleneck;
  float* dexpanded = work.dexpanded.get(expands ? in * mp : g.pixels() * mp);
  filter_gradient(x, k, outer, dfiltered, dexpanded, expands ? &inner : nullptr, dx, dp);
  if (!expands) return;
  inner.finish(in);
  deposit(kExpand, inner, dp);
  expand_gradient(x, k, inner, dexpanded, dx, dp);
}

void Layer::deposit(Place n, const NormGradient& norm, float* const* dp) const {
  const long c = n == kOut ? d.cout : d.mid;
  std::copy(norm.dscale.begin(), norm.dscale.begin() + c, dp[kScale + n]);
  std::copy(norm.dbias.begin(), norm.dbias.begin() + c, dp[kBias + n]);
}

void Layer::skip_gradient(const float* dy, float* dx) {
  const long shared = std::min(d.cin, d.cout);
  for (long image = 0; image < s.batch; ++image) {
    const float* from = dy + image * g.out_pixels() * s.cout;
    float* to = dx + image * g.pixels() * s.cin;
    if (d.skip == kIdentity)
      for (long r = 0; r < g.pixels(); ++r)
        for (long c = 0; c < shared; ++c) to[r * s.cin + c] += from[r * s.cout + c];
    if (d.skip == kPool)
      for_each_pooled(pool, [&](long in, long out, float share) {
        for (long c = 0; c < shared; ++c) to[in * s.cin + c] += share * from[out * s.cout + c];
      });
  }
}

// Cotangents of `gate` [p] of an image (overwritten) -> what every pixel's cotangent gains.
void Layer::gate_gradient(Kept k, long image, float* dgate, float* const* dp, float* shift) {
  const long gp = pitch(gated());
  std::fill(shift, shift + gp, 0.0f);
  excite().backward(k.pooled + image * gp, k.unit + image * pitch(s.hidden), k.gate + image * gp,
                    dgate, dp[kW1], dp[kB1], dp[kW2], dp[kB2], shift);
  for (long c = 0; c < gp; ++c) shift[c] /= float(g.out_pixels());
}

// dy -> dt [out, op_], cotangents of the last convolution's result
void Layer::output_gradient(Kept k, const float* dy, float* dt, float* const* dp) {
  const long pixels = g.out_pixels();
  const long act = d.op == kConv ? d.act : long(kNone);
  const bool gated = d.op == kConv && d.hidden;
  dense(dy, s.batch * pixels, d.cout, s.cout, dt);
  NormGradient gradient(norms[kOut]);
  float* rows = work.rows.get((pixels + 2) * op_);
  float *dgate = rows + pixels * op_, *shift = dgate + op_;
  for (long image = 0; image < s.batch; ++image) {
    const float* out = k.out + image * pixels * op_;
    float* at = dt + image * pixels * op_;
    if (gated) {
      norm_act(norms[kOut], act, out, pixels, nullptr, rows);
      std::fill(dgate, dgate + op_, 0.0f);
      for (long r = 0; r < pixels; ++r)
        for (long c = 0; c < op_; ++c) dgate[c] += rows[r * op_ + c] * at[r * op_ + c];
      gate_gradient(k, image, dgate, dp, shift);
    }
    gradient.open_and_collect(act, out, pixels, gated ? k.gate + image * op_ : nullptr,
                              gated ? shift : nullptr, at);
  }
  gradient.finish(double(s.batch) * pixels);
  deposit(kOut, gradient, dp);
  gradient.input(k.out, dt, s.batch * pixels, dt);
}

void Layer::convolve_gradient(const float* x, const float* dt, float* dx, float* const* dp) {
  const long depth = d.kernel * d.kernel * d.cin, pixels = g.out_pixels(), group = images_at_once();
  const long dpitch = pitch(depth), size = g.padded_size(d.cin);
  float* weights = work.weights.get(depth * op_);
  conv_weights(weights);
  float* turned = work.turned.get(d.cout * dpitch);
  transpose(weights, op_, depth, d.cout, turned);
  float* padded = work.padded.zeros(2 * size);
  float* dpadded = padded + size;
  float* patches = work.patches.get(group * pixels * depth);
  float* dpatches = work.rows.get(group * pixels * dpitch);
  float* dw = work.more.zeros(depth * op_);
  for (long image = 0; image < s.batch; image += group) {
    const long images = std::min(group, s.batch - image);
    for (long i = 0; i < images; ++i) {
      padded_input(x, image + i, padded);
      gather_patches(g, padded, d.cin, patches + i * pixels * depth);
    }
    const float* at = dt + image * pixels * op_;
    gemm(depth, op_, images * pixels, {patches, 1, depth}, at, op_, dw, op_, true);
    if (d.root) continue;
    gemm(images * pixels, dpitch, d.cout, {at, op_, 1}, turned, dpitch, dpatches, dpitch, false);
    for (long i = 0; i < images; ++i) {
      std::memset(dpadded, 0, size * sizeof(float));
      scatter_patches(g, dpatches + i * pixels * dpitch, dpitch, d.cin, dpadded);
      float* to = dx + (image + i) * g.pixels() * s.cin;
      for (long y = 0; y < g.h.size; ++y)
        for (long j = 0; j < g.w.size; ++j, to += s.cin) {
          const float* from = dpadded + g.inside(y, j, d.cin);
          for (long c = 0; c < d.cin; ++c) to[c] += from[c];
        }
    }
  }
  const long margin = (s.kernel - d.kernel) / 2;
  for (long t = 0; t < d.kernel * d.kernel; ++t) {
    const long y = margin + t / d.kernel, j = margin + t % d.kernel;
    for (long c = 0; c < d.cin; ++c) {
      const float* from = dw + (t * d.cin + c) * op_;
      std::copy(from, from + d.cout, dp[kW] + ((y * s.kernel + j) * s.cin + c) * s.cout);
    }
  }
}

void Layer::project_gradient(Kept k, const float* dt, float* dfiltered, NormGradient& gradient,
                             float* const* dp) {
  const long pixels = g.out_pixels(), group = images_at_once();
  float* turned = work.turned.get(d.cout * mp);
  transpose(p[kWp], s.cout, d.mid, d.cout, turned);
  float* rows = work.rows.get((group * pixels + 2) * mp);
  float *dgate = rows + group * pixels * mp, *shift = dgate + mp;
  float* dw = work.more.zeros(d.mid * op_);
  for (long image = 0; image < s.batch; image += group) {
    const long images = std::min(group, s.batch - image), n = images * pixels;
    const float* at = dt + image * pixels * op_;
    float* dh = dfiltered + image * pixels * mp;
    gemm(n, mp, d.cout, {at, op_, 1}, turned, mp, dh, mp, false);
    for (long i = image; i < image + images; ++i) {
      const float* filtered = k.filtered + i * pixels * mp;
      const float* gate = d.hidden ? k.gate + i * mp : nullptr;
      float *h = rows + (i - image) * pixels * mp, *of = dfiltered + i * pixels * mp;
      norm_act(norms[kDepthwise], d.act, filtered, pixels, nullptr, h);
      if (gate != nullptr) {
        std::fill(dgate, dgate + mp, 0.0f);
        for (long c = 0; c < mp; c += kLanes) {
          Vec sum = {};
          const Vec gain = load(gate + c);
          for (long r = 0; r < pixels; ++r) {
            const Vec v = load(h + r * mp + c);
            sum += v * load(of + r * mp + c);
            store(h + r * mp + c, v * gain);
          }
          store(dgate + c, sum);
        }
        gate_gradient(k, i, dgate, dp, shift);
      }
      gradient.open_and_collect(d.act, filtered, pixels, gate, gate ? shift : nullptr, of);
    }
    gemm(d.mid, op_, n, {rows, 1, mp}, at, op_, dw, op_, true);
  }
  for (long c = 0; c < d.mid; ++c)
    std::copy(dw + c * op_, dw + c * op_ + d.cout, dp[kWp] + c * s.cout);
}

void Layer::filter_gradient(const float* x, Kept k, const NormGradient& outer,
                            const float* dfiltered, float* dexpanded, NormGradient* inner,
                            float* dx, float* const* dp) {
  const long pixels = g.pixels(), out = g.out_pixels(), taps = d.kernel * d.kernel;
  const Cotangents layout(g);
  float* weights = work.weights.get(taps * mp);
  depthwise_weights(weights);
  float* padded = work.padded.zeros(g.padded_size(mp));
  float* cotangents = work.rows.zeros(layout.size(mp));
  float* dw = work.more.zeros(taps * mp);
  for (long image = 0; image < s.batch; ++image) {
    const float* of = dfiltered + image * out * mp;
    const float* filtered = k.filtered + image * out * mp;
    for (long i = 0; i < g.h.out; ++i) {
      const long row = i * g.w.out * mp;
      outer.input(filtered + row, of + row, g.w.out, cotangents + layout.row(i) * mp);
    }
    for (long i = 0; i < g.h.size; ++i) {
      const long row = image * pixels + i * g.w.size;
      float* to = padded + g.inside(i, 0, mp);
      if (inner != nullptr)
        norm_act(norms[kExpand], d.act, k.expanded + row * mp, g.w.size, nullptr, to);
      else
        dense(x + row * s.cin, g.w.size, d.cin, s.cin, to);
    }
    depthwise_dw(g, layout, padded, cotangents, mp, dw);
    float* dh = dexpanded + (inner != nullptr ? image * pixels * mp : 0);
    depthwise_dx(g, layout, cotangents, weights, mp, dh);
    if (inner != nullptr) {
      inner->open_and_collect(d.act, k.expanded + image * pixels * mp, pixels, nullptr, nullptr, dh);
      continue;
    }
    float* to = dx + image * pixels * s.cin;
    for (long r = 0; r < pixels; ++r)
      for (long c = 0; c < d.cin; ++c) to[r * s.cin + c] += dh[r * mp + c];
  }
  const long margin = (s.kernel - d.kernel) / 2;
  for (long t = 0; t < taps; ++t) {
    const long y = margin + t / d.kernel, j = margin + t % d.kernel;
    std::copy(dw + t * mp, dw + t * mp + d.mid, dp[kWd] + (y * s.kernel + j) * s.middle);
  }
}

void Layer::expand_gradient(const float* x, Kept k, const NormGradient& gradient,
                            const float* dexpanded, float* dx, float* const* dp) {
  const long ip = pitch(d.cin), total = s.batch * g.pixels();
  float* turned = work.turned.get(d.mid * ip);
  transpose(p[kWe], s.middle, d.cin, d.mid, turned);
  float* rows = work.rows.get(256 * (mp + ip));
  float* drows = rows + 256 * mp;
  float* dw = work.more.zeros(d.cin * mp);
  for (long r = 0; r < total; r += 256) {
    const long n = std::min(256L, total - r);
    gradient.input(k.expanded + r * mp, dexpanded + r * mp, n, rows);
    gemm(d.cin, mp, n, {x + r * s.cin, 1, s.cin}, rows, mp, dw, mp, true);
    gemm(n, ip, d.mid, {rows, mp, 1}, turned, ip, drows, ip, false);
    for (long i = 0; i < n; ++i)
      for (long c = 0; c < d.cin; ++c) dx[(r + i) * s.cin + c] += drows[i * ip + c];
  }
  for (long c = 0; c < d.cin; ++c)
    std::copy(dw + c * mp, dw + c * mp + d.mid, dp[kWe] + c * s.middle);
}

}  // namespace fnas
