"""Minibatches: one loop over steps for everything that is trained on images.

Within an epoch batches are drawn without replacement; an incomplete last one is left out. The order
of an epoch and the augmentation are functions of keys and of the number of the step, so that a
training may be cut anywhere and go on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.mapped import Images
from fnas_jax.core.types import Array


class Data(NamedTuple):
    """What a network is trained on and judged by; images as stored.

    On devices, or on the host: then anything of which rows are arrays, in memory or not.
    """

    train_images: Array | Images  # [n, H, W, C]
    # Targets of the objective [n, ..]: classes int32 [n], or masks [n, H, W], moved with images
    train_labels: Array | np.ndarray
    eval_images: Array | Images  # [m, H, W, C]
    eval_labels: Array | np.ndarray  # [m, ..]


class Augment(Protocol):
    """A random view of every image of a batch, and of its mask where there are masks."""

    def __call__(
        self, key: Array, images: Array, masks: Array | None = None
    ) -> tuple[Array, Array | None]:
        """(images [B, H, W, C], masks [B, H, W]) of normalised images and their masks.

        What moves pixels moves masks alike, and where no pixel was they are `IGNORE`; what changes
        colours leaves them as they are. Masks are None where they were.
        """


def in_memory(data: Data) -> Data:
    """`data` of the host as numpy arrays."""
    return Data(*map(np.asarray, data))


class Pipeline(NamedTuple):
    """What becomes of stored images; pure functions."""

    normalise: Callable[[Array], Array]  # [B, H, W, C] -> float32
    augment: Augment


def unchanged(key: Array, images: Array, masks: Array | None = None) -> tuple[Array, Array | None]:
    """The `Augment` that leaves images and masks as they are."""
    return images, masks


class Minibatches(NamedTuple):
    """Where minibatches come from."""

    data: Data
    pipeline: Pipeline
    size: int  # images of each
    key_order: Array  # of the order of images
    key_augment: Array
    axis: str = ""  # of the mesh whose devices share each minibatch; "": one has all of it

    @property
    def per_epoch(self) -> int:
        """Minibatches of an epoch."""
        return self.data.train_labels.shape[0] // self.size


def make(
    data: Data,
    pipeline: Pipeline,
    batch_size: int,
    key_order: Array,
    key_augment: Array,
    axis: str = "",
) -> Minibatches:
    """Minibatches of `batch_size` training images, or of all where there are fewer."""
    size = size_of(data, batch_size)
    return Minibatches(data, pipeline, size, key_order, key_augment, axis)


def size_of(data: Data, batch_size: int) -> int:
    """Images of each minibatch."""
    return min(batch_size, data.train_labels.shape[0])


def order_of(batches: Minibatches, epoch: Array) -> Array:
    """[n] int32 rows of the training images in the order of an epoch."""
    count = batches.data.train_labels.shape[0]
    return jax.random.permutation(jax.random.fold_in(batches.key_order, epoch), count)


def load(batches: Minibatches, order: Array, position: Array, step: Array) -> tuple[Array, Array]:
    """(augmented images [B, H, W, C], labels [B, ..]) of the batch at `position` of an epoch.

    Labels [B, H, W] are masks, and move as their images do. Of devices that share it each has its
    own part, B / D in a row, augmented by a key of its own.
    """
    rows = lax.dynamic_slice(order, (position * batches.size,), (batches.size,))
    key = jax.random.fold_in(batches.key_augment, step)
    if batches.axis:
        rows, key = _own_part(batches, rows, key)
    images = batches.pipeline.normalise(batches.data.train_images[rows])
    labels = batches.data.train_labels[rows]
    images, masks = batches.pipeline.augment(key, images, labels if labels.ndim == 3 else None)
    return images, labels if masks is None else masks


def _own_part(batches: Minibatches, rows: Array, key: Array) -> tuple[Array, Array]:
    """The rows of this device, [B / D] of [B], and its key."""
    count, place = lax.axis_size(batches.axis), lax.axis_index(batches.axis)
    if batches.size % count:
        raise ValueError(f"{batches.size} images cannot be divided among {count} devices")
    own = batches.size // count
    return lax.dynamic_slice(rows, (place * own,), (own,)), jax.random.fold_in(key, place)


def over_steps(
    batches: Minibatches,
    train_step: Callable[[Array, Any, Array, Array], Any],
    state: Any,
    first: Array | int,
    last: Array,
    epoch_start: Array | int,
    order: Array | None = None,
) -> Any:
    """`state` after `train_step(step, state, images, labels)` of the steps `first` to `last`.

    Epochs begin at step `epoch_start`. `order` [n] is that of the epoch in which `first` stands;
    None: it is drawn, again where `first` does not begin one.
    """
    drawn = order is None
    if order is None:
        order = jnp.arange(batches.data.train_labels.shape[0])

    def body(step: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        state, order = carry
        position = (step - epoch_start) % batches.per_epoch
        due = (position == 0) | (step == first) if drawn else position == 0
        epoch = (step - position) // batches.per_epoch
        order = lax.cond(due, lambda: order_of(batches, epoch), lambda: order)
        return train_step(step, state, *load(batches, order, position, step)), order

    return lax.fori_loop(first, last, body, (state, order))[0]
