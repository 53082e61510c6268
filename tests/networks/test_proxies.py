"""Zero-cost proxies of elastic networks against plain Flax networks with the same weights.

The Flax side knows nothing of the elastic one: it has layers of its own, JAX's reverse derivative,
and lists what rectifiers let through while the network runs.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import layered
from fnas_jax.core.precision import float64
from fnas_jax.layers import ops
from fnas_jax.layers.spec import HARD_SWISH, NONE
from fnas_jax.networks import elastic, flax_mobile, flax_reference, proxies, subnet_weights
from fnas_jax.networks.proxies import Batch
from tests.networks import agreement
from tests.networks.agreement import CHANNELS, CLASSES, SPACES

GATED_PIXELS = layered.make(
    [layered.stage(8, {"a": layered.conv(3, act="relu"), "b": layered.sepconv(3)}, stride=2)],
    stem=8,
    stem_stride=1,
)
IMAGES = 6
ops_activate = ops.activate
GATED = layered.make(
    [
        layered.stage(
            8,
            {
                "gated": layered.mbconv(3, 2, act="relu6", se=True, skip="identity"),
                "hard": layered.conv(3, act="hard_swish", skip="pool"),
                "plain": layered.sepconv(5, act="relu6"),
            },
            depth=2,
        )
    ],
    stem=80,  # squeeze-excitation has a quarter of it
    head=8,  # without, images' derivatives of a sum over normalised ones are nothing
)
OWN = layered.make(
    [
        layered.stage(
            8,
            {
                "mine": layered.own("tests.layers.own_layers:Named"),
                "other": layered.conv(3, act="relu"),
            },
            depth=2,
            stride=2,
        )
    ],
    stem=8,
    head=8,
)
OURS = {name: SPACES[name] for name in ("macro", "cell")} | {"gated": GATED}
SLOW = ("mnas", "mixed_cell", "mixed_chain", "mobilenetv3")
CASES = [*OURS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def batch():
    images = np.random.default_rng(3).standard_normal((IMAGES, 5, 7, CHANNELS))
    return Batch(images.astype(np.float32), np.arange(IMAGES) % CLASSES)


def loss(logits, targets):
    return -(jax.nn.log_softmax(logits) * jax.nn.one_hot(targets, CLASSES)).sum(-1).mean()


@functools.cache
def looked(name):
    """[(arch, what the one program found, scores)] of architectures with every choice."""
    space = (OURS | SPACES)[name]
    network = elastic.plain(space, CHANNELS, CLASSES)
    double = elastic.plain(space, CHANNELS, CLASSES, jnp.float64)
    run = jax.jit(functools.partial(proxies.raw, network, loss))
    flow = jax.jit(functools.partial(proxies.log_synflow, double))
    found = []
    for arch in np.asarray(space.canonical(jnp.asarray(agreement.every_choice(space)))):
        raw = jax.tree.map(np.asarray, run(batch(), jax.random.key(7), arch))
        with float64():
            of = float(flow(agreement.doubled(raw.params), arch, np.ones((1, 5, 7, CHANNELS))))
        found.append((arch, raw, proxies.scores(space, arch, raw, network.init_stats(), of)))
    return space, network.init_stats(), found


def plain(space, arch, params, stats):
    module = flax_reference.build(space, arch, CLASSES, fast=False)
    return module, subnet_weights.get(space, arch, params, stats)


def kernels(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [np.asarray(leaf, np.float64) for path, leaf in leaves if path[-1].key == "kernel"]


def in_training(module, variables, params, images):
    given = variables | {"params": params}
    return module.apply(given, images, train=True, mutable=["batch_stats"])[0]


@pytest.mark.parametrize("name", CASES)
def test_snip_and_grad_norm_are_those_of_a_plain_network(name):
    space, stats, found = looked(name)
    for arch, raw, scores in found:
        module, variables = plain(space, arch, raw.params, stats)

        def of(params, module=module, variables=variables):
            return loss(in_training(module, variables, params, batch().images), batch().targets)

        gradients = jax.jit(jax.grad(of))(variables["params"])
        pairs = list(zip(kernels(variables["params"]), kernels(gradients), strict=True))
        snip = sum(np.abs(w * g).sum() for w, g in pairs)
        norms = sum(np.linalg.norm(g) for _, g in pairs)
        np.testing.assert_allclose(scores[:2], np.log([snip, norms]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_jacov_is_that_of_a_plain_network(name):
    space, stats, found = looked(name)
    for arch, raw, scores in found:
        module, variables = plain(space, arch, raw.params, stats)
        run = functools.partial(in_training, module, variables, variables["params"])
        jacobian = np.asarray(jax.jit(jax.grad(lambda x, run=run: run(x).sum()))(batch().images))
        rows = jacobian.reshape(IMAGES, -1).astype(np.float64)
        rows = rows - rows.mean(1, keepdims=True)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        v = np.linalg.eig(rows @ rows.T)[0].real
        assert scores[3] == pytest.approx(-np.sum(np.log(v + 1e-5) + 1 / (v + 1e-5)), rel=1e-3)


def recorded(f, codes):
    """`f`, which adds to `codes` which numbers of each image are above 0."""

    def run(x):
        y = f(x)
        codes.append(np.asarray(y > 0).reshape(IMAGES, -1))
        return y

    return run


@pytest.mark.parametrize("name", CASES)
def test_naswot_counts_the_rectifiers_of_a_plain_network(name, monkeypatch):
    space, stats, found = looked(name)
    for arch, raw, scores in found:
        codes = []
        with monkeypatch.context() as patch:
            patch.setattr(nn, "relu", recorded(jax.nn.relu, codes))
            activate = recorded(lambda pair: ops_activate(*pair), codes)
            patch.setattr(
                ops, "activate", lambda act, x, f=activate: x if act % 4 == NONE else f((act, x))
            )
            module, variables = plain(space, arch, raw.params, stats)
            in_training(module, variables, variables["params"], batch().images)
        c = np.concatenate(codes, axis=1).astype(np.float64)
        kernel = c @ c.T + (1 - c) @ (1 - c).T
        # A number that is nearly zero may be on either side of it, which is rare.
        np.testing.assert_allclose(raw.agreement, kernel, atol=3)
        assert raw.agreement[0, 0] == c.shape[1]
        assert scores[4] == pytest.approx(np.linalg.slogdet(raw.agreement.astype(float))[1])


@pytest.mark.parametrize("name", CASES)
def test_synflow_is_that_of_a_plain_network_without_normalisations(name, monkeypatch):
    """Whose activations and gates are their slopes at 0, and what ReLU makes of numbers above 0."""
    space, stats, found = looked(name)
    slope = lambda act, x: x / 2 if act % 4 == HARD_SWISH else x  # noqa: E731
    monkeypatch.setattr(ops, "activate", slope)
    monkeypatch.setattr(flax_mobile, "gate", lambda h, hidden, hard=0: h / 2 if hidden else h)

    class Nothing(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x

    monkeypatch.setattr(nn, "BatchNorm", lambda **given: Nothing(name=given["name"]))
    for arch, raw, scores in found:
        with float64():
            module, variables = plain(space, arch, agreement.doubled(raw.params), stats)
            sizes = jax.tree.map(jnp.abs, variables["params"])
            ones = np.ones((1, 5, 7, CHANNELS))

            def total(params, module=module, ones=ones):
                return module.apply({"params": params}, ones, train=False).sum()

            gradients = jax.grad(total)(sizes)
            pairs = zip(kernels(sizes), kernels(gradients), strict=True)
            expected = np.log(sum((w * g).sum() for w, g in pairs))
        assert scores[2] == pytest.approx(expected, abs=1e-5)


def test_networks_differ_and_weights_do_not():
    """All networks are looked at with the same draw, each with its own scores."""
    _, _, found = looked("macro")
    scores = np.stack([own for *_, own in found])
    assert np.isfinite(scores).all() and (np.ptp(scores, axis=0) > 1e-3).all()
    stems = np.stack([raw.params["stem"] for _, raw, _ in found])
    assert (stems == stems[0]).all()


def test_a_network_that_nothing_goes_through_has_no_scores():
    space, stats, _ = looked("cell")
    run = jax.jit(functools.partial(proxies.raw, elastic.plain(space, CHANNELS, CLASSES), loss))
    double, arch = elastic.plain(space, CHANNELS, CLASSES, jnp.float64), np.zeros(6, np.int32)
    raw = jax.tree.map(np.asarray, run(batch(), jax.random.key(0), arch))
    with float64():
        ones, weights = np.ones((1, 5, 7, CHANNELS)), agreement.doubled(raw.params)
        of = float(jax.jit(functools.partial(proxies.log_synflow, double))(weights, arch, ones))
    assert not np.isfinite(proxies.scores(space, arch, raw, stats, of)[2:4]).any()


@pytest.mark.parametrize(("space", "outputs"), [(OWN, CLASSES), (GATED_PIXELS, agreement.PIXELS)])
def test_layers_of_the_users_own_and_pixels_have_scores(space, outputs):
    network = elastic.plain(space, CHANNELS, outputs)
    double = elastic.plain(space, CHANNELS, outputs, jnp.float64)
    of_loss = loss if outputs == CLASSES else lambda y, t: (y**2).mean()
    run = jax.jit(functools.partial(proxies.raw, network, of_loss))
    flow = jax.jit(functools.partial(proxies.log_synflow, double))
    for arch in np.asarray(space.canonical(jnp.asarray(agreement.every_choice(space)))):
        raw = jax.tree.map(np.asarray, run(batch(), jax.random.key(7), arch))
        with float64():
            of = float(flow(agreement.doubled(raw.params), arch, np.ones((1, 5, 7, CHANNELS))))
        scores = proxies.scores(space, arch, raw, network.init_stats(), of)
        assert np.isfinite(scores).all()


def test_what_is_watched_says_nothing_else():
    """Neither results nor other derivatives depend on it."""
    x = jax.random.normal(jax.random.key(0), (4, 3, 3, 5))
    p = {"scale": jnp.linspace(0.5, 1, 5), "bias": jnp.linspace(-1, 1, 5)}
    watched = p | {ops.AGREEMENT: jnp.zeros((4, 4))}

    def out(p, x):
        return (ops.norm_act(x, p, 4, 1)[0] ** 2).sum()

    assert out(p, x) == out(watched, x)
    mine, theirs = jax.grad(out)(p, x), jax.grad(out)(watched, x)
    for name in p:
        np.testing.assert_array_equal(mine[name], theirs[name])
    h = np.asarray(ops.norm_act(x, p, 4, 1)[0])[..., :4].reshape(4, -1) > 0
    agree = (h[:, None] == h[None, :]).sum(-1)
    np.testing.assert_array_equal(theirs[ops.AGREEMENT], agree)
