"""Whether elastic children equal Flax networks of the same weights: logits, gradients, statistics.

Used by one test file per space, which test runners can then spread over processes.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fnas_jax import layered
from fnas_jax.core.precision import float64
from fnas_jax.layers import choose
from fnas_jax.layers.choose import Backend
from fnas_jax.networks import cell as cell_network
from fnas_jax.networks import elastic, flax_reference, mobile, subnet_weights
from fnas_jax.networks.base import Network
from fnas_jax.networks.dense import Dense
from fnas_jax.spaces import cell, macro, mixed_cell, mixed_chain, mnas, mobilenetv3
from fnas_jax.spaces.cells import SPECS

CLASSES, CHANNELS = 3, 2
PIXELS = Dense(CLASSES)
SPACES = {
    "mnas": mnas.make(blocks=2, strides=(2, 1), width=0.5, stem=16, stem_stride=1, head=16),
    "macro": macro.make(macro.MacroSpec(strides=(2, 1, 1), channels=(8,) * 3, stem=8, head=24)),
    "cell": cell.make(channels=4, cells_per_stage=1),
    # One stage: what is between stages is that of cells.
    "mixed_cell": mixed_cell.make()._replace(spec=mixed_cell.MixedCellSpec(4, 1, 1)),
    "mixed_chain": mixed_chain.make()._replace(spec=mixed_chain.MixedChainSpec(4, 1, 1)),
    "mobilenetv3": mobilenetv3.make(stages=2, width=0.5, strides=(1, 2), stem_stride=1),
    # Squeeze-excitation without any activation in front of it.
    "layered": layered.make(
        [
            layered.stage(
                8,
                {"gated": layered.conv(3, act="none", se=True), "k5": layered.conv(5, act="none")},
            )
        ],
        stem=8,
    ),
}


class Outcome(NamedTuple):
    """What a network makes of the images."""

    logits: Any  # in training mode
    gradients: Any  # of the mean loss in that mode
    evaluated: Any  # logits by given statistics
    moments: Any  # the batch's, of every normalisation


class Case(NamedTuple):
    """Both networks of some children of one space."""

    elastic: list[Outcome]  # gradients and moments already cut to the child
    whole: list[Any]  # gradients of all parameters of the elastic network
    flax: list[Outcome]


def case(
    space: Any, backend: str | Backend = "auto", archs: Any = None, outputs: Any = CLASSES
) -> Case:
    """Elastic and Flax network of `archs`, by default those of `every_choice`.

    By "exact", each has a network of its own.
    """
    space = SPACES[space] if isinstance(space, str) else space
    archs = every_choice(space) if archs is None else archs
    images = jax.random.normal(jax.random.key(1), (8, 5, 7, CHANNELS))
    given = weights(network(space, backend, outputs), archs[0])
    if backend != elastic.EXACT:
        return compared(space, network(space, backend, outputs), archs, images, *given, outputs)
    each = []
    for arch in archs:
        net = elastic.exact_network(space, CHANNELS, outputs, arch)
        each.append(compared(space, net, [arch], images, *given, outputs))
    return Case(*(list(itertools.chain(*found)) for found in zip(*each, strict=True)))


def in_double(space: Any, outputs: Any = CLASSES) -> Case:
    """As `case`, by XLA's code in float64; few images."""
    space = SPACES[space] if isinstance(space, str) else space
    cells = isinstance(space.spec, SPECS)
    net = network(space, jnp.float64 if cells else choose.REFERENCE, outputs)
    archs = every_choice(space)
    images = np.random.default_rng(1).standard_normal((4, 5, 7, CHANNELS))
    given = doubled(weights(net, archs[0]))
    with float64():
        return compared(space, net, archs, images, *given, outputs)


def compared(
    space: Any, net: Network, archs: Any, images: Any, params: Any, stats: Any, outputs: Any
) -> Case:
    """Of the elastic network `net` and of Flax networks with the same weights."""
    ours = elastic_outcomes(space, net, params, stats, archs, [images] * len(archs))
    found = Case(*ours, [])
    for arch in archs:
        module = flax_reference.build(space, arch, outputs, fast=False)
        found.flax.append(run_flax(module, subnet_weights.get(space, arch, params, stats), images))
    return found


def network(space: Any, backend: Any, outputs: Any = CLASSES) -> Network:
    """The elastic network; `backend` also one in a type that these devices would not have.

    Or such a type, of the spaces of cells.
    """
    if isinstance(backend, Backend):
        return mobile.network(mobile.elastic(space.spec, CHANNELS, outputs, backend))
    if isinstance(backend, str):
        return elastic.make(space, CHANNELS, outputs, backend)
    return cell_network.build(space.spec, CHANNELS, outputs, backend)


def weights(net: Network, arch: Any) -> tuple[Any, Any]:
    """Parameters and statistics of the elastic network, none of them a special number."""
    key = jax.random.key(1)
    return filled(jax.eval_shape(lambda: (net.init(key, arch), net.init_stats())))


def elastic_outcomes(
    space: Any, net: Network, params: Any, stats: Any, archs: Any, images: Any
) -> tuple[list[Outcome], list[Any]]:
    """(what the elastic network makes of each of `archs`' images, all gradients); see `Case`."""

    @jax.jit
    def run(arch: Any, images: Any) -> tuple[Any, Any]:
        def loss(params: Any) -> tuple[Any, Any]:
            logits = net.apply(params, arch, images)
            return mean_loss(logits), logits

        return jax.grad(loss, has_aux=True)(params)

    @jax.jit
    def evaluate(arch: Any, images: Any, collect: bool) -> tuple[Any, Any]:
        return net.apply_eval(params, stats, arch, images, collect)

    found, whole = [], []
    for arch, own in zip(archs, images, strict=True):
        gradients, logits = jax.tree.map(np.asarray, run(arch, own))
        _, moments = jax.tree.map(np.asarray, evaluate(arch, own, True))
        cut = subnet_weights.get(space, arch, gradients, moments)
        evaluated = np.asarray(evaluate(arch, own, False)[0])
        found.append(Outcome(logits, cut["params"], evaluated, cut["batch_stats"]))
        whole.append(gradients)
    return found, whole


def doubled(tree: Any) -> Any:
    """The same numbers in float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def every_choice(space: Any) -> np.ndarray:
    """As few architectures as have every choice of every decision, which are random otherwise."""
    rng, n = np.random.default_rng(1), max(space.cardinalities)
    return np.stack([rng.permutation(n) % k for k in space.cardinalities], axis=1)


@functools.cache
def flax_program(module: Any) -> Any:
    """Compiled once for all backends: (variables, images) -> `Outcome` of the Flax network."""

    def loss(params: Any, variables: Any, images: Any) -> tuple[Any, Any]:
        of = variables | {"params": params}
        logits, new = module.apply(of, images, train=True, mutable=["batch_stats"])
        return mean_loss(logits), (logits, new["batch_stats"])

    @jax.jit
    def run(variables: Any, images: Any) -> Outcome:
        gradient = jax.grad(loss, has_aux=True)
        gradients, (logits, running) = gradient(variables["params"], variables, images)
        evaluated = module.apply(variables, images, train=False)
        return Outcome(logits, gradients, evaluated, running)

    return run


def run_flax(module: Any, variables: Any, images: Any) -> Outcome:
    """What a Flax network makes of the images."""
    found = jax.tree.map(np.asarray, flax_program(module)(variables, images))
    # The running average moves by a tenth towards the batch's moments.
    moments = jax.tree.map(
        lambda new, old: 10 * new - 9 * old, found.moments, variables["batch_stats"]
    )
    return found._replace(moments=moments)


def mean_loss(logits: Any) -> Any:
    """Of images, or of pixels, each of another class than its neighbours."""
    labels = jnp.arange(logits[..., 0].size).reshape(logits.shape[:-1]) % CLASSES
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def filled(tree: Any) -> Any:
    """Numbers for all leaves: statistics' variances positive, no scale one and no bias zero."""
    rng = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        name = str(path[-1])
        values = rng.standard_normal(leaf.shape).astype(np.float32)
        if "var" in name:
            return np.abs(values) + 0.5
        return 1 + 0.2 * values if "scale" in name else 0.2 * values

    return jax.tree_util.tree_map_with_path(fill, tree)


def assert_close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal trees, but for `tolerance` of the largest number of `expected` or of one."""
    scale = max(1.0, *(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected)))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance * scale), got, expected
    )


def check_training_logits(case: Case, tolerance: float = 1e-5) -> None:
    for ours, child in zip(case.elastic, case.flax, strict=True):
        assert_close(ours.logits, child.logits, tolerance)


def check_gradients(case: Case, tolerance: float = 1e-5) -> None:
    """Equal, and none outside the child."""
    for ours, child, whole in zip(case.elastic, case.flax, case.whole, strict=True):
        assert_close(ours.gradients, child.gradients, tolerance)
        np.testing.assert_allclose(squares(whole), squares(ours.gradients), rtol=1e-5)


def squares(tree: Any) -> float:
    return sum(float((leaf.astype(np.float64) ** 2).sum()) for leaf in jax.tree.leaves(tree))


def check_evaluation_logits(case: Case, tolerance: float = 1e-5) -> None:
    for ours, child in zip(case.elastic, case.flax, strict=True):
        assert_close(ours.evaluated, child.evaluated, tolerance)


def check_moments(case: Case, tolerance: float = 1e-4) -> None:
    # Undoing the running average costs a digit.
    for ours, child in zip(case.elastic, case.flax, strict=True):
        assert_close(ours.moments, child.moments, tolerance)


CHECKS = (check_training_logits, check_gradients, check_evaluation_logits, check_moments)
