"""Training of one network for all architectures: what one-shot methods share.

A step trains one or several architectures on the same minibatch. What is drawn, and what is learnt
about architectures beside the weights, is the method's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Network
from fnas_jax.training import child, minibatches, optimizer
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline

# (params, arch [T], switches [L, K], images, labels) -> mean nats per image. Switches are the same
# architecture as `arch`, for losses that can be differentiated in them.
Loss = Callable[[Params, Array, Array, Array, Array], Array]
# (state, images, labels, key) -> (state, scalars or small arrays to average over steps)
Step = Callable[[Any, Array, Array, Array], tuple[Any, dict[str, Array]]]
# (nll of any arch [T] = switches [L, K], the switches that are trained, their nll) -> [L, K]
Compare = Callable[[Callable[[Array, Array], Array], Array, Array], Array]


class Weights(NamedTuple):
    """The supernet in training."""

    vector: Array  # [P] float32, all parameters
    momentum: Any  # of the optimizer
    step: Array  # [] int32 updates done


class StepOutput(NamedTuple):
    """What S architectures found on one minibatch."""

    nll: Array  # [S] nats per image
    norm: Array  # [S] squared norm of the weights that they use
    switches: Array  # [S, L, K] d nll / d switches, or what `compare` says; zeros unless asked for


class Supernet(NamedTuple):
    """What is trained and how; nothing that changes."""

    loss: Loss
    template: Params  # shapes of the parameters
    used: Callable[[Array], Params]  # arch [T] -> booleans as the parameters
    settings: Children
    updates: int  # of the whole training
    vmap: bool  # architectures whose gradients are averaged run at once

    def start(self, params: Params) -> Weights:
        """Before the first step."""
        vector = _ravel(params)
        return Weights(vector, optimizer.sgd(self.settings).init(vector), jnp.int32(0))

    def params(self, vector: Array) -> Params:
        """The parameters of the network."""
        return jax.flatten_util.ravel_pytree(self.template)[1](vector)

    def weighs(self, arch: Array) -> Array:
        """[P] bool: a weight (no scale or bias) that the architecture [T] uses."""
        return _ravel(self.used(arch)) & _ravel(
            jax.tree_util.tree_map_with_path(
                lambda path, leaf: jnp.full(leaf.shape, optimizer.is_weight(path)), self.template
            )
        )

    def norms(self, vector: Array, archs: Array) -> Array:
        """[N] squared norm of the weights that each of `archs` [N, T] uses."""
        # One after another, so that no more than one set of booleans is in memory.
        return lax.map(lambda arch: jnp.vdot(self.weighs(arch), vector**2), archs)

    def train_step(
        self,
        weights: Weights,
        archs: Array,
        switches: Array,
        images: Array,
        labels: Array,
        decay: float,
        by_switch: bool = False,
        compare: Compare | None = None,
        average: bool = False,
    ) -> tuple[Weights, StepOutput]:
        """Trains `archs` [S, T] = `switches` [S, L, K] on a minibatch, one after another.

        Each moves the weights, S updates in all; or, with `average`, the mean of their gradients
        makes one. The loss has `decay` / 2 times the squared norm of the weights they use.
        `compare` sees the weights as they are before each architecture moves them.
        """

        def one(vector: Array, arch: Array, z: Array) -> tuple[Array, StepOutput]:
            def loss(vector: Array, arch: Array, z: Array) -> Array:
                return self.loss(self.params(vector), arch, z, images, labels)

            arguments = (0, 2) if by_switch else (0,)
            nll, found = jax.value_and_grad(loss, arguments)(vector, arch, z)
            g = found[1] if by_switch else jnp.zeros_like(z)
            if compare is not None:
                g = compare(lambda arch, z: loss(vector, arch, z), z, nll)
            used = self.weighs(arch) * vector
            return found[0] + decay * used, StepOutput(nll, jnp.vdot(used, used), g)

        def move(weights: Weights, item: tuple[Array, Array]) -> tuple[Weights, StepOutput]:
            gradient, found = one(weights.vector, *item)
            return self.update(weights, gradient), found

        def add(total: Array, item: tuple[Array, Array]) -> tuple[Array, StepOutput]:
            gradient, found = one(weights.vector, *item)
            return total + gradient, found

        if not average:
            return lax.scan(move, weights, (archs, switches))
        if self.vmap:
            gradients, found = jax.vmap(lambda a, z: one(weights.vector, a, z))(archs, switches)
            return self.update(weights, gradients.mean(0)), found
        total, found = lax.scan(add, jnp.zeros_like(weights.vector), (archs, switches))
        return self.update(weights, total / len(archs)), found

    def update(self, weights: Weights, gradient: Array) -> Weights:
        """One step of SGD with Nesterov's momentum, warm-up and cosine decay."""
        change, momentum = optimizer.sgd(self.settings).update(gradient, weights.momentum)
        rate = optimizer.learning_rate(self.settings, weights.step, jnp.int32(self.updates))
        return Weights(weights.vector - rate * change, momentum, weights.step + 1)


def make(
    network: Network, settings: Children, arch: Array, updates: int, vmap: bool, loss: Loss
) -> Supernet:
    """The supernet of an elastic network; `arch` [T] is any architecture of its space."""
    assert network.parts is not None
    shapes = jax.eval_shape(network.init, jax.random.key(0), arch)
    template = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Supernet(loss, template, network.parts.used, settings, updates, vmap)


def single_path(network: Network, smoothing: float = 0.0) -> Loss:
    """The loss that runs only what the architecture chose; its switches have no derivative."""

    def loss(params: Params, arch: Array, z: Array, images: Array, labels: Array) -> Array:
        return nll(network.apply(params, arch, images), labels, smoothing)

    return loss


def nll(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """[] mean cross-entropy in nats of logits [B, C] and labels [B], which may be smoothed."""
    if smoothing:
        return child.smoothed_cross_entropy(logits, labels, smoothing)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def runner(
    step: Step, steps_done: Callable[[Any], Array], pipeline: Pipeline, batch_size: int
) -> Callable[[Any, Array, Data, Array], tuple[Any, dict[str, Array]]]:
    """The jitted function (state, key, data, count []) -> (state `count` steps on, mean scalars).

    Minibatches, augmentation and keys are functions of `key` and the number of the step, so that a
    training cut anywhere goes on as if it had not been.
    """

    def run(state: Any, key: Array, data: Data, count: Array) -> tuple[Any, dict[str, Array]]:
        key_order, key_augment, key_step = jax.random.split(key, 3)
        batches = minibatches.make(data, pipeline, batch_size, key_order, key_augment)

        def train_step(i: Array, carry: Any, images: Array, labels: Array) -> Any:
            state, sums = carry
            state, scalars = step(state, images, labels, jax.random.fold_in(key_step, i))
            return state, jax.tree.map(jnp.add, sums, scalars)

        first = steps_done(state)
        order = minibatches.order_of(batches, first // batches.per_epoch)
        batch = minibatches.load(batches, order, jnp.int32(0), first)
        shapes = jax.eval_shape(lambda: step(state, *batch, key_step)[1])
        sums = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        span = (first, first + count)
        state, sums = minibatches.over_steps(batches, train_step, (state, sums), *span, 0, order)
        return state, jax.tree.map(lambda s: s / count, sums)

    return jax.jit(run)


def stages(
    run: Callable[..., tuple[Any, dict[str, Array]]],
    steps_done: Callable[[Any], Array],
    report: Callable[[Any, dict[str, Any]], dict[str, Any]],
    data: Data,
    total: int,
    every: int,
) -> Callable[[Any, Array], Iterator[tuple[Any, dict[str, Any]]]]:
    """The `prepare` of a method: `total` steps, with a report each `every`; goes on where it is."""

    def prepare(state: Any, key: Array) -> Iterator[tuple[Any, dict[str, Any]]]:
        while int(steps_done(state)) < total:
            count = min(every, total - int(steps_done(state)))
            state, scalars = run(state, key, data, jnp.int32(count))
            yield state, report(state, jax.device_get(scalars))

    return prepare


def _ravel(tree: Any) -> Array:
    return jax.flatten_util.ravel_pytree(tree)[0]
