// Memory that the stages of a layer work in, kept from layer to layer.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "tiles.h"
#include "vector.h"

namespace fnas {

struct Workspace {
  Scratch whole;  // of all images: what an evaluation keeps, or `Layer::Gradients`
  Scratch weights, transposed, dweights;  // of the convolution at hand, the child's part
  Scratch padded;                         // an image and its padding
  Scratch activations;                    // rows of pixels after normalisation, activation, gate
  Scratch dgate, dpooled;                 // of one image
  Scratch drows, dinput;                  // rows of pixels, of a part of the batch
  Scratch padded_dfiltered;               // of one image, as `PaddedOutput`
  Scratch floats;                         // on their way to or from where shorts are kept
  // Factors of products of shorts
  Scratch short_weights, packed_weights, short_rows, packed_left, packed_right, packed_odd;
};

// The workspace of the layer that runs on this thread, which has to hold a `Lease`.
inline thread_local Workspace* leased = nullptr;
inline Workspace& work() { return *leased; }

// XLA has more threads than layers run at a time, and any of them may run one: a workspace belongs
// to a running layer, so that there are no more of them than devices at work.
class Lease {
 public:
  Lease() {
    const std::lock_guard<std::mutex> lock(mutex());
    if (idle().empty()) {
      own_ = std::make_unique<Workspace>();
    } else {
      own_ = std::move(idle().back());
      idle().pop_back();
    }
    leased = own_.get();
  }
  Lease(const Lease&) = delete;
  ~Lease() {
    release_tiles();
    const std::lock_guard<std::mutex> lock(mutex());
    leased = nullptr;
    idle().push_back(std::move(own_));
  }

 private:
  // Never destroyed: threads may outlive the end of the program's main one.
  static std::mutex& mutex() {
    static auto* const mutex = new std::mutex;
    return *mutex;
  }
  static std::vector<std::unique_ptr<Workspace>>& idle() {
    static auto* const idle = new std::vector<std::unique_ptr<Workspace>>;
    return *idle;
  }

  std::unique_ptr<Workspace> own_;
};

}  // namespace fnas
