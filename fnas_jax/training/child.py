"""Training of a child: one loop for every network.

The loop is the same for every child, and its number of steps is data: a child, a longer training
and a place left empty in a batch run the same compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.networks.base import Network, Stats


class Settings(NamedTuple):
    """How children are trained; plain numbers, part of the compiled program."""

    batch_size: int = 64
    lr: float = 0.1  # peak; cosine decay to 0
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 1e-4  # of weights, not of norms and biases
    label_smoothing: float = 0.0
    warmup: float = 0.1  # share of the steps in which the rate rises
    max_grad_norm: float = 5.0
    eval_batch: int = 256
    calibration: int = 4  # batches from which normalisation statistics are estimated


class Data(NamedTuple):
    """What a network is trained on and judged by; images as stored, on devices or the host."""

    train_images: Array | np.ndarray  # [n, H, W, C]
    train_labels: Array | np.ndarray  # [n] int32
    eval_images: Array | np.ndarray  # [m, H, W, C]
    eval_labels: Array | np.ndarray  # [m] int32


class Pipeline(NamedTuple):
    """What becomes of stored images; pure functions."""

    normalise: Callable[[Array], Array]  # [B, H, W, C] -> float32
    augment: Callable[[Array, Array], Array]  # (key, normalised images) -> images


class Outcome(NamedTuple):
    """How a child did."""

    accuracy: Array  # [] float32 in [0, 1], on the evaluation images
    loss: Array  # [] float32 nats, mean cross-entropy there
    ok: Array  # [] bool: the loss stayed finite


def learning_rate(settings: Settings, step: Array, steps: Array) -> Array:
    """Linear warm-up over `warmup * steps` steps, then cosine to 0 at `steps`."""
    warm = jnp.maximum(settings.warmup * steps, 1.0)
    progress = jnp.clip((step - warm) / jnp.maximum(steps - warm, 1.0), 0.0, 1.0)
    return settings.lr * jnp.minimum((step + 1) / warm, 0.5 * (1 + jnp.cos(jnp.pi * progress)))


def _optimizer(settings: Settings, decayed: Array) -> optax.GradientTransformation:
    """Everything but the learning rate, which needs the number of steps; `decayed` as params."""

    def decay(gradient: Array, params: Any) -> Array:
        return gradient + settings.weight_decay * decayed * params

    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.stateless(decay),
        optax.trace(settings.momentum, nesterov=True),
    )


def _is_weight(path: tuple[Any, ...]) -> bool:
    """Whether a parameter is neither a bias nor a scale of a normalisation."""
    return getattr(path[-1], "key", "") not in ("scale", "bias", "b1", "b2")


class Progress(NamedTuple):
    """A child in training."""

    vector: Array  # [P] all parameters; an update per tensor would be most of what is compiled
    momentum: Any  # of the optimiser
    order: Array  # [n] int32 rows of the data in the order of this epoch


def begin(
    network: Network, settings: Settings, arch: Array, key: Array, start: Params | None = None
) -> tuple[Array, Any]:
    """(parameters [P], optimiser's state) of a child `arch` [T], of `start` or fresh ones."""
    params = network.init(jax.random.split(key, 3)[0], arch) if start is None else start
    vector = jax.flatten_util.ravel_pytree(params)[0]
    return vector, _optimizer(settings, jnp.ones(())).init(vector)


def params_of(network: Network, arch: Array, progress: tuple[Array, Any]) -> Params:
    """The parameters of a child in training, as its network has them."""
    return _unravel(network, arch)(progress[0])


def _unravel(network: Network, arch: Array) -> Callable[[Array], Params]:
    shapes = jax.eval_shape(network.init, jax.random.key(0), arch)
    return jax.flatten_util.ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape), shapes))[1]


def advance(
    network: Network,
    settings: Settings,
    pipeline: Pipeline,
    data: Data,
    arch: Array,
    key: Array,
    progress: tuple[Array, Any],
    first: Array | int,
    last: Array,
    steps: Array,
) -> tuple[Array, Any]:
    """A child of `begin` after steps `first` to `last` of `steps`, all [] int32.

    Batches are drawn without replacement within an epoch, which begins at `first`; an incomplete
    last one is left out.
    """
    _, key_order, key_augment = jax.random.split(key, 3)
    count = data.train_labels.shape[0]
    batch = min(settings.batch_size, count)
    per_epoch = count // batch
    shapes = jax.eval_shape(network.init, key, arch)
    weights = jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.full(p.shape, _is_weight(path), p.dtype), shapes
    )
    decayed, as_params = jax.flatten_util.ravel_pytree(weights)
    optimizer = _optimizer(settings, decayed)

    def loss_of(vector: Array, images: Array, labels: Array) -> Array:
        logits = network.apply(as_params(vector), arch, images)
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, logits.shape[-1]), settings.label_smoothing
        )
        return optax.softmax_cross_entropy(logits, targets).mean()

    def shuffle(i: Array) -> Array:
        return jax.random.permutation(jax.random.fold_in(key_order, i), count)

    def step(i: Array, now: Progress) -> Progress:
        position = (i - first) % per_epoch
        order = lax.cond(position == 0, lambda: shuffle(i // per_epoch), lambda: now.order)
        rows = lax.dynamic_slice(order, (position * batch,), (batch,))
        images = pipeline.normalise(data.train_images[rows])
        images = pipeline.augment(jax.random.fold_in(key_augment, i), images)
        gradient = jax.grad(loss_of)(now.vector, images, data.train_labels[rows])
        update, momentum = optimizer.update(gradient, now.momentum, now.vector)
        vector = now.vector - learning_rate(settings, i, steps) * update
        return Progress(vector, momentum, order)

    now = lax.fori_loop(first, last, step, Progress(*progress, jnp.arange(count)))
    return now.vector, now.momentum


def train(
    network: Network,
    settings: Settings,
    pipeline: Pipeline,
    data: Data,
    arch: Array,
    key: Array,
    steps: Array,
    start: Params | None = None,
) -> Params:
    """Parameters of the child `arch` [T] after `steps` [] steps of SGD from `start`.

    None: from fresh ones.
    """
    progress = begin(network, settings, arch, key, start)
    everything = (network, settings, pipeline, data, arch, key)
    return params_of(network, arch, advance(*everything, progress, 0, steps, steps))


def evaluate(
    network: Network,
    settings: Settings,
    pipeline: Pipeline,
    data: Data,
    arch: Array,
    params: Params,
    active: Array,
) -> tuple[Stats, Outcome]:
    """Re-estimates normalisation statistics on training images, then judges the child.

    `active` [] bool: False skips the work, and the outcome means nothing. Training and
    evaluation batches run through one loop, so that the network is compiled once.
    """
    count, total = data.train_labels.shape[0], data.eval_labels.shape[0]
    batch = min(settings.eval_batch, count, total)
    calibration = settings.calibration
    batches = calibration + -(-total // batch)

    def step(i: Array, carry: tuple[Stats, Array, Array]) -> tuple[Stats, Array, Array]:
        sums, correct, loss = carry
        collect = i < calibration
        train_rows = (i * batch + jnp.arange(batch)) % count
        eval_rows = (i - calibration) * batch + jnp.arange(batch)
        counted = ~collect & (eval_rows < total)
        eval_rows = jnp.clip(eval_rows, 0, total - 1)
        images = jnp.where(collect, data.train_images[train_rows], data.eval_images[eval_rows])
        labels = data.eval_labels[eval_rows]
        logits, moments = network.apply_eval(
            params, _average(sums, calibration), arch, pipeline.normalise(images), collect
        )
        raw = jax.tree.map(lambda m: Moments(m.mean, m.var + m.mean**2), moments, is_leaf=_leaf)
        sums = jax.tree.map(lambda s, m: jnp.where(collect, s + m, s), sums, raw)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        hits = (logits.argmax(-1) == labels) & counted
        return sums, correct + hits.sum(), loss + jnp.where(counted, nats, 0.0).sum()

    start = (network.init_stats(), jnp.int32(0), jnp.float32(0))
    sums, correct, loss = lax.fori_loop(0, jnp.where(active, batches, 0), step, start)
    ok = jnp.isfinite(loss)
    accuracy = jnp.where(ok, correct / total, 0.0)
    return _average(sums, calibration), Outcome(accuracy.astype(jnp.float32), loss / total, ok)


def _leaf(node: Any) -> bool:
    return isinstance(node, Moments)


def _average(sums: Stats, batches: int) -> Stats:
    """Sums of means and of mean squares -> mean and variance over all batches together."""

    def moments(s: Moments) -> Moments:
        mean = s.mean / batches
        return Moments(mean, jnp.maximum(s.var / batches - mean**2, 0.0))

    return jax.tree.map(moments, sums, is_leaf=_leaf)
