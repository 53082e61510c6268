"""Training of one network for all architectures: what one-shot methods share.

A step trains one or several architectures on the same minibatch. What is drawn, and what is learnt
about architectures beside the weights, is the method's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Network
from fnas_jax.objectives.base import Objective
from fnas_jax.training import optimizer
from fnas_jax.training.config import Children

# (params, arch [T], switches [L, K], images, labels) -> mean nats per image. Switches are the same
# architecture as `arch`, for losses that can be differentiated in them.
Loss = Callable[[Params, Array, Array, Array, Array], Array]
# The loss of a minibatch, (vector [P], arch [T], switches [L, K]) -> []
BatchLoss = Callable[[Array, Array, Array], Array]
# (loss, vector, arch, switches) -> (nll [], its gradient in the vector [P], what the method learns
# of the switches [L, K]); it may ask for the loss of other architectures, too
Differentiate = Callable[[BatchLoss, Array, Array, Array], tuple[Array, Array, Array]]


class Weights(NamedTuple):
    """The supernet in training."""

    vector: Array  # [P] float32, all parameters
    momentum: Any  # of the optimizer
    step: Array  # [] int32 updates done


def settled(weights: Weights) -> Weights:
    """After the last step: a momentum of zeros, which take next to nothing of a checkpoint."""
    return weights._replace(momentum=jax.tree.map(jnp.zeros_like, weights.momentum))


class StepOutput(NamedTuple):
    """What S architectures gave on one minibatch."""

    nll: Array  # [S] nats per image
    norm: Array  # [S] squared norm of the weights that they use
    switches: Array  # [S, L, K] what `Differentiate` says of the switches


class Supernet(NamedTuple):
    """What is trained and how; nothing that changes."""

    loss: Loss
    template: Params  # shapes of the parameters
    used: Callable[[Array], Params]  # arch [T] -> booleans as the parameters
    settings: Children
    updates: int  # of the whole training
    vmap: bool  # architectures whose gradients are averaged run at once
    # Of the mesh whose devices share each minibatch, under `shard_map`; "": one has all of it
    axis: str = ""

    def start(self, params: Params) -> Weights:
        """Before the first step."""
        vector = _ravel(params)
        return Weights(vector, optimizer.sgd(self.settings).init(vector), jnp.int32(0))

    def params(self, vector: Array) -> Params:
        """The parameters of the network."""
        return jax.flatten_util.ravel_pytree(self.template)[1](vector)

    def used_weights(self, arch: Array) -> Array:
        """[P] bool: a weight (no scale or bias) that the architecture [T] uses."""
        return _ravel(self.used(arch)) & (_ravel(optimizer.weights(self.template)) > 0)

    def norms(self, vector: Array, archs: Array) -> Array:
        """[N] squared norm of the weights that each of `archs` [N, T] uses."""
        # One after another, so that no more than one set of booleans is in memory.
        return lax.map(lambda arch: jnp.vdot(self.used_weights(arch), vector**2), archs)

    def update(self, weights: Weights, gradient: Array) -> Weights:
        """One step of SGD with Nesterov's momentum, warm-up and cosine decay."""
        change, momentum = optimizer.sgd(self.settings).update(gradient, weights.momentum)
        rate = optimizer.learning_rate(self.settings, weights.step, jnp.int32(self.updates))
        return Weights(weights.vector - rate * change, momentum, weights.step + 1)


def make(
    network: Network,
    settings: Children,
    arch: Array,
    updates: int,
    vmap: bool,
    loss: Loss,
    axis: str = "",
) -> Supernet:
    """The supernet of an elastic network; `arch` [T] is any architecture of its space."""
    assert network.parts is not None
    shapes = jax.eval_shape(network.init, jax.random.key(0), arch)
    template = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Supernet(loss, template, network.parts.used, settings, updates, vmap, axis)


def single_path(
    network: Network,
    objective: Objective,
    label_smoothing: float,
    params: Params,
    arch: Array,
    z: Array,
    images: Array,
    labels: Array,
) -> Array:
    """The `Loss` that runs only what `arch` chose; its switches have no derivative."""
    return nll(objective, network.apply(params, arch, images), labels, label_smoothing)


def mixed(
    network: Network,
    objective: Objective,
    label_smoothing: float,
    params: Params,
    arch: Array,
    z: Array,
    images: Array,
    labels: Array,
) -> Array:
    """The `Loss` with derivatives in its switches, of networks that have them."""
    assert network.apply_mixed is not None
    outputs = network.apply_mixed(params, arch, z, images)
    return nll(objective, outputs, labels, label_smoothing)


def nll(
    objective: Objective, outputs: Array, targets: Array, label_smoothing: float = 0.0
) -> Array:
    """[] mean loss of the outputs of B images, as that of children: their likelihood in nats."""
    if label_smoothing or objective.known.weights:
        return objective.loss(outputs, targets, label_smoothing)
    return objective.errors(outputs, targets).mean()


def weights_only(
    loss: BatchLoss, vector: Array, arch: Array, z: Array
) -> tuple[Array, Array, Array]:
    """The `Differentiate` of methods that learn nothing of the switches: zeros."""
    nll, gradient = jax.value_and_grad(loss)(vector, arch, z)
    return nll, gradient, jnp.zeros_like(z)


def with_switches(
    loss: BatchLoss, vector: Array, arch: Array, z: Array
) -> tuple[Array, Array, Array]:
    """The `Differentiate` that gives d nll / d z, from the same backward pass."""
    nll, (gradient, by_switch) = jax.value_and_grad(loss, (0, 2))(vector, arch, z)
    return nll, gradient, by_switch


def train_step(
    net: Supernet,
    weights: Weights,
    archs: Array,
    switches: Array,
    images: Array,
    labels: Array,
    decay: float,
    differentiate: Differentiate = weights_only,
    average: bool = False,
) -> tuple[Weights, StepOutput]:
    """Trains `archs` [S, T] = `switches` [S, L, K] on a minibatch, one after another.

    Each moves the weights, S updates in all; or, with `average`, the mean of their gradients makes
    one. The loss has `decay` / 2 times the squared norm of the weights they use. `differentiate`
    sees the weights as they are before each architecture moves them.
    """
    one = functools.partial(_gradient, net, differentiate, images, labels, decay)

    def move(weights: Weights, item: tuple[Array, Array]) -> tuple[Weights, StepOutput]:
        gradient, output = one(weights.vector, *item)
        return net.update(weights, gradient), output

    def add(total: Array, item: tuple[Array, Array]) -> tuple[Array, StepOutput]:
        gradient, output = one(weights.vector, *item)
        return total + gradient, output

    if not average:
        return lax.scan(move, weights, (archs, switches))
    if net.vmap:
        gradients, output = jax.vmap(functools.partial(one, weights.vector))(archs, switches)
        return net.update(weights, gradients.mean(0)), output
    total, output = lax.scan(add, jnp.zeros_like(weights.vector), (archs, switches))
    return net.update(weights, total / len(archs)), output


def _gradient(
    net: Supernet,
    differentiate: Differentiate,
    images: Array,
    labels: Array,
    decay: float,
    vector: Array,
    arch: Array,
    z: Array,
) -> tuple[Array, StepOutput]:
    """(gradient [P] of the loss with its decay, output without axis S) of one architecture."""

    def loss(vector: Array, arch: Array, z: Array) -> Array:
        return net.loss(net.params(vector), arch, z, images, labels)

    found = differentiate(loss, vector, arch, z)
    # All three are linear in the loss, which is a mean over images, and devices have equally many.
    nll, gradient, switches = lax.pmean(found, net.axis) if net.axis else found
    used = net.used_weights(arch) * vector
    return gradient + decay * used, StepOutput(nll, jnp.vdot(used, used), switches)


def _ravel(tree: Any) -> Array:
    return jax.flatten_util.ravel_pytree(tree)[0]
