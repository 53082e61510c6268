"""Zero-cost proxies: what a network says of itself before it is trained, by one minibatch.

As Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS (arXiv 2101.08134) define them, of
weights of convolutions and linear layers, without biases:

    snip       sum over weights of |w dL/dw| (arXiv 1810.02340)
    grad_norm  sum over layers of the Euclidean norm of dL/dw
    synflow    sum over weights of w dR/dw, where R sums the outputs for an image of ones, weights
               are their sizes and nothing is normalised (arXiv 2006.05467)
    jacov      how unlike the images' derivatives are by the images, -sum(log(v + k) + 1 / (v + k))
               over the eigenvalues v of their correlations, k = 1e-5
    naswot     log-determinant of how many rectifiers agree for two images (arXiv 2006.04647)

One compiled program measures all networks of a space, by its elastic network. Ours: in `synflow`,
activations stand for their slope at 0 from above, and gates for their value there, so that weights
within gates count for nothing. For ReLU this changes nothing, as all its inputs are positive;
ReLU6 and sigmoids would be saturated by the sizes that arise. Rectifiers count as open where their
input is positive, hard swish, too. Of a network that ends in a normalisation, with neither
activation nor skip behind it, the sum of outputs is the same for all images, and `jacov` is noise.

In spaces with layers of the user's own (`layers.own`) only those by derivatives mean something:
what rectifies there, and what flows without an image, nobody knows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import ops, own
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.networks import mobile_spaces, subnet_weights
from fnas_jax.networks.base import Network, Stats
from fnas_jax.spaces.base import Space

NAMES = ("snip", "grad_norm", "synflow", "jacov", "naswot")
BY_DERIVATIVES = ("snip", "grad_norm", "jacov")
_LEAST = 1e-5  # k of jacov
_STEP = 1e-5  # of synflow's central difference
_SMALL = 1e-150  # of the image of ones: what it becomes in a network stays where that is linear


class Batch(NamedTuple):
    """What a network is looked at with."""

    images: Array | np.ndarray  # [B, H, W, C] float32, normalised
    targets: Array | np.ndarray  # [B, ..] of the objective


class Raw(NamedTuple):
    """What one program finds of a network; `params` are as `Network.init` makes them."""

    params: Params
    gradients: Params  # of the loss, with agreements beside them (`ops.watched`)
    jacobian: Array  # [B, H, W, C] of the sum of outputs, in the images
    agreement: Array  # [B, B] of rectifiers


def raw(
    network: Network, loss: Callable[[Array, Array], Array], batch: Batch, key: Array, arch: Array
) -> Raw:
    """Of the network of `arch` [T], untrained, with weights drawn with `key`. Pure and jittable.

    `network` is one of `elastic.plain`: others do not count all rectifiers. `loss`: (outputs,
    targets) -> [] their mean.
    """
    params = network.init(key, arch)
    watched = _watching(params, len(batch.images))
    outputs, back = jax.vjp(lambda p, x: network.apply(p, arch, x), watched, batch.images)
    gradients, _ = back(jax.grad(loss)(outputs, batch.targets))
    _, jacobian = back(jnp.ones_like(outputs))
    return Raw(params, gradients, jacobian, _agreement(gradients))


def log_synflow(network: Network, params: Params, arch: Array, image: Array) -> Array:
    """[] the logarithm of synflow, for an `image` [1, H, W, C] of ones; all in float64.

    A network without normalisations is one that normalises by moments that change nothing. All
    terms are positive, so that their sum is one derivative, along the weights. It is a central
    difference, right to 1e-6 of it: evaluation has no reverse derivative (`switch.select`), and
    convolutions have no forward one.
    """
    both = jnp.asarray([1 + _STEP, 1 - _STEP], image.dtype)
    up, down = lax.map(lambda f: _flow(network, _scaled(f, params), arch, image), both)
    return jnp.log(up - down) - jnp.log(2 * _STEP) - jnp.log(_SMALL)


def _flow(network: Network, params: Params, arch: Array, image: Array) -> Array:
    """[] _SMALL R by weights of the sizes of `params`."""
    stats = jax.tree.map(
        lambda m: Moments(
            jnp.zeros(m.mean.shape, image.dtype),
            jnp.full(m.var.shape, 1 - ops.BN_EPSILON, image.dtype),
        ),
        network.init_stats(),
        is_leaf=lambda node: isinstance(node, Moments),
    )
    return network.apply_eval(params, stats, arch, _SMALL * image, jnp.bool_(False))[0].sum()


def _scaled(factor: Array, params: Params) -> Params:
    """The sizes of `params`, those of weights times `factor`; biases are zero in new networks."""

    def scaled(path: Any, leaf: Array) -> Array:
        # What has no name of its own, but a place in a list, is a weight.
        return jnp.abs(leaf) * (1 if _name(path) == "scale" else factor)

    return jax.tree_util.tree_map_with_path(scaled, params)


def seen(space: Space) -> tuple[str, ...]:
    """Those of NAMES that mean something in `space`."""
    if type(space.spec) in mobile_spaces.MODULES:
        slots = itertools.chain(*mobile_spaces.slots(space.spec))
        if any(own.codes(slot) for slot in slots):
            return BY_DERIVATIVES
    return NAMES


def scores(space: Space, arch: Any, found: Raw, stats: Stats, log_synflow: float) -> np.ndarray:
    """[5] float64, by NAMES, of what the programs found of `arch` [T]; `stats` of any numbers.

    The logarithms of snip and grad_norm.
    """
    cut = [
        subnet_weights.get(space, arch, tree, stats)["params"]
        for tree in (found.params, found.gradients)
    ]
    pairs = zip(*(_kernels(tree) for tree in cut), strict=True)
    each = [(np.abs(w * g).sum(), np.sqrt((g * g).sum())) for w, g in pairs]
    with np.errstate(divide="ignore"):  # of a network that nothing goes through
        snip, grad_norm = np.log(np.sum(each, axis=0))
    naswot = np.linalg.slogdet(np.asarray(found.agreement, np.float64))[1]
    return np.array([snip, grad_norm, log_synflow, jacov(found.jacobian), naswot])


def _kernels(tree: Any) -> list[np.ndarray]:
    """Weights of convolutions and linear layers, float64."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [np.asarray(leaf, np.float64) for path, leaf in leaves if _name(path) == "kernel"]


def jacov(jacobian: Any) -> float:
    """See above; `jacobian` [B, ..] are the images' derivatives."""
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = np.corrcoef(np.asarray(jacobian, np.float64).reshape(len(jacobian), -1))
    if not np.isfinite(correlations).all():  # no image's derivative differs by place
        return float("nan")
    v = np.linalg.eigvalsh(correlations)
    return float(-np.sum(np.log(v + _LEAST) + 1 / (v + _LEAST)))


def _watching(params: Any, images: int) -> Any:
    """`params` with zeros beside all that rectifies, which `ops.watched` looks for."""
    if isinstance(params, list):
        return [_watching(node, images) for node in params]
    if not isinstance(params, dict):
        return params
    found = {
        name: node if name.startswith(own.PREFIX) else _watching(node, images)
        for name, node in params.items()
    }
    # Equal layers are stacked in front of what one has: a scale [C], a matrix [C, R].
    for name, axes in (("scale", 1), ("w1", 2), ("mix", 2)):
        if name in params:
            shape = params[name].shape[:-axes]
            found[ops.AGREEMENT] = jnp.zeros((*shape, images, images))
    return found


def _agreement(gradients: Params) -> Array:
    """[B, B] the sum of all that is watched, in whichever layer."""
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    found = [leaf for path, leaf in leaves if _name(path) == ops.AGREEMENT]
    return sum((leaf.reshape(-1, *leaf.shape[-2:]).sum(0) for leaf in found), jnp.zeros(()))


def _name(path: Any) -> str:
    """The last name of a path in a pytree; "" of a place in a list."""
    return getattr(path[-1], "key", "")
