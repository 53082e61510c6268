// Squeeze-excitation of one image: gate = s(relu(pooled w1 + b1) w2 + b2), where pooled is
// the mean over the image's pixels, and s(x) a sigmoid or the hard one, clip(x + 3, 0, 6) / 6. [c]
// below are `channels` of c' floats.
#pragma once

#include <algorithm>
#include <cmath>

#include "batch_norm.h"

namespace fnas {

// Mean over rows of act(norm(x)), x [rows, p] -> out [p]
template <class T>
inline void mean_act(const Norm& norm, long act, const T* x, long rows, float* out) {
  const long p = norm.p;
  with_act(act, [&](auto a) {
    for (long c = 0; c < p; c += kLanes) {
      Vec sum = {};
      const Norm::Lanes lanes = norm.lanes(c);
      for (long r = 0; r < rows; ++r) sum += activate<a.value>(lanes(load(x + r * p + c)));
      store(out + c, sum / float(rows));
    }
  });
}

// h [rows, p], dout [rows, p] of h * gate -> dgate [p]; h becomes h * gate.
template <class T>
inline void gate_backward(T* h, const float* dout, const float* gate, long rows, long p,
                          float* dgate) {
  for (long c = 0; c < p; c += kLanes) {
    Vec sum = {};
    const Vec gain = load(gate + c);
    for (long r = 0; r < rows; ++r) {
      const Vec v = load(h + r * p + c);
      sum += v * load(dout + r * p + c);
      store(h + r * p + c, v * gain);
    }
    store(dgate + c, sum);
  }
}

struct SqueezeExcite {
  long channels, hidden;  // that the child uses
  long ld1, ld2;          // row strides of w1 [channels, hidden] and w2 [hidden, channels]
  bool hard;              // s
  const float *w1, *b1, *w2, *b2;

  struct Gradients {  // with the strides of the parameters
    float *w1, *b1, *w2, *b2;
  };

  // pooled [c] -> units [hidden], gate [c]
  void forward(const float* pooled, float* units, float* gate) const {
    std::copy(b1, b1 + hidden, units);
    for (long c = 0; c < channels; ++c)
      for (long r = 0; r < hidden; ++r) units[r] += pooled[c] * w1[c * ld1 + r];
    std::copy(b2, b2 + channels, gate);
    for (long r = 0; r < hidden; ++r) {
      units[r] = units[r] < 0 ? 0 : units[r];
      for (long c = 0; c < channels; ++c) gate[c] += units[r] * w2[r * ld2 + c];
    }
    for (long c = 0; c < channels; ++c)
      gate[c] = hard ? std::min(std::max(gate[c] + 3, 0.0f), 6.0f) / 6
                     : 1 / (1 + std::exp(-gate[c]));
  }

  // dgate [c], which is overwritten -> dpooled [c]; the parameters' derivatives are added to `d`.
  void backward(const float* pooled, const float* units, const float* gate, float* dgate,
                const Gradients& d, float* dpooled) const {
    for (long c = 0; c < channels; ++c) {
      dgate[c] *= hard ? (gate[c] > 0 && gate[c] < 1 ? 1 / 6.0f : 0) : gate[c] * (1 - gate[c]);
      d.b2[c] += dgate[c];
      dpooled[c] = 0;
    }
    for (long r = 0; r < hidden; ++r) {
      float dunit = 0;
      for (long c = 0; c < channels; ++c) {
        d.w2[r * ld2 + c] += units[r] * dgate[c];
        dunit += w2[r * ld2 + c] * dgate[c];
      }
      if (!(units[r] > 0)) continue;
      d.b1[r] += dunit;
      for (long c = 0; c < channels; ++c) {
        d.w1[c * ld1 + r] += pooled[c] * dunit;
        dpooled[c] += w1[c * ld1 + r] * dunit;
      }
    }
  }
};

}  // namespace fnas
