// Memory that the stages of a layer work in, kept from layer to layer.
#pragma once

#include "vector.h"

namespace fnas {

struct Workspace {
  Scratch kept;                           // of an evaluation, as `Kept`
  Scratch weights, transposed, dweights;  // of the convolution at hand, the child's part
  Scratch padded, dpadded;                // an image and its padding
  Scratch patches, dpatches;              // of a group of images
  Scratch activations;                    // rows of pixels after normalisation, activation, gate
  Scratch dgate, dpooled;                 // of one image
  Scratch drows, dinput;                  // rows of pixels, of a part of the batch
  Scratch padded_dfiltered;               // of one image, as `PaddedOutput`
  Scratch dout, dfiltered, dexpanded;     // as `Layer::Gradients`
};

inline thread_local Workspace work;

}  // namespace fnas
