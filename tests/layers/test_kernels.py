"""Layers by the kernels for CPUs against the same layers by XLA's code."""

import functools
import logging
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.layers import compile_kernels, ops, parameters, reference
from fnas_jax.layers import kernels as kernels_lib
from fnas_jax.layers.reference import Evaluation, Setting
from fnas_jax.networks import mnas

if not compile_kernels.available():
    pytest.skip("no C++ compiler for the kernels", allow_module_level=True)

KEY = jax.random.key(0)
# (stride, widest input, widest output, pixels): odd and even sizes, kernels larger than the image
PLACES = ((1, 24, 24, 9), (2, 16, 40, 8), (2, 40, 16, 3))
WIDTHS = (8, 16, 24, 40)


@functools.partial(jax.jit, static_argnums=(0, 1))
def differences(place, kind, kernel, cin, cout, se, skip):
    """Largest difference of every result of a layer, over the largest number of it."""
    stride, widest, widest_out, side = place
    variants = mnas.variants(stride)
    setting = Setting(kernel, cin, cout, se, skip)
    of = ((), widest, widest_out, setting, variants, jnp.int32(kind), True)
    params = ops.realise(KEY, parameters.init_layers(*of))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(KEY, p.shape), params)
    used = parameters.used_layers(*of)
    into, out = jnp.arange(widest) < cin, jnp.arange(widest_out) < cout
    x = jax.random.normal(KEY, (5, side, side, widest)) * into

    def by_xla(params, x):
        y, _ = reference.layer(variants[kind], params, x, setting, None)
        return y + reference.skip(x, widest_out, stride, setting)

    def by_kernels(params, x):
        return kernels_lib.apply(variants, params, x, kind, setting)

    (y, pull), (z, pull_z) = (jax.vjp(f, params, x) for f in (by_xla, by_kernels))
    g = jax.random.normal(jax.random.key(1), y.shape) * out
    (dp, dx), (ep, ex) = pull(g), pull_z(g)
    pairs = {"y": (y, z), "dx": (dx * into, ex)}
    for path, a in jax.tree_util.tree_leaves_with_path(jax.tree.map(jnp.multiply, dp, used)):
        b = functools.reduce(lambda tree, step: tree[step.key], path, ep)
        pairs[jax.tree_util.keystr(path)] = (a, b)
    stats = jax.tree.map(lambda s: s + 0.3, reference.zero_stats(params))
    for collect in (False, True):
        evaluation = Evaluation(stats, jnp.bool_(collect))
        a, moments = reference.layer(variants[kind], params, x, setting, evaluation)
        b, found = kernels_lib.apply_eval(variants, params, x, kind, setting, evaluation)
        pairs[f"evaluated {collect}"] = (a + reference.skip(x, widest_out, stride, setting), b)
    width = jnp.arange(widest_out) < cout
    pairs["mean"] = (moments["norm_out"].mean * width, found["norm_out"].mean)
    pairs["var"] = (moments["norm_out"].var * width, found["norm_out"].var)
    return {
        name: jnp.max(jnp.abs(a - b)) / (1e-2 + jnp.max(jnp.abs(a)))
        for name, (a, b) in pairs.items()
    }


@pytest.mark.parametrize("kind", range(4), ids=["conv", "sepconv", "mbconv3", "mbconv6"])
@given(data=st.data())
@settings(max_examples=12)
def test_layers_are_those_of_xla(kind, data):
    place = data.draw(st.sampled_from(PLACES if kind in (0, 3) else PLACES[1:2]))
    cin = data.draw(st.sampled_from([w for w in WIDTHS if w <= place[1]]))
    cout = data.draw(st.sampled_from([w for w in WIDTHS if w <= place[2]]))
    kernel, se, skip = (data.draw(st.integers(0, n)) for n in (1, 1, 2))
    found = differences(
        place, kind, *(jnp.int32(v) for v in (kernel, cin, cout)), jnp.bool_(se), jnp.int32(skip)
    )
    worst = max(found, key=lambda name: found[name])
    assert found[worst] < 3e-4, worst


def setting(cin, cout, skip=reference.SKIP_NONE):
    numbers = (jnp.int32(n) for n in (0, cin, cout))
    return Setting(*numbers, jnp.bool_(False), jnp.int32(skip))


def layer(x, kind=3):
    variants = mnas.variants(1)
    of = ((), 8, 8, setting(8, 8), variants, jnp.int32(kind), True)
    params = ops.realise(KEY, parameters.init_layers(*of))
    return kernels_lib.apply(variants, params, x, kind, setting(8, 8))


@pytest.mark.parametrize("kind", range(4))
def test_what_is_not_a_number_stays_so(kind):
    x = jnp.ones((2, 4, 4, 8)).at[0, 0, 0, 0].set(jnp.nan)
    y, pull = jax.vjp(lambda x: layer(x, kind), x)
    assert jnp.isnan(y).any()
    assert jnp.isnan(pull(jnp.ones_like(y))[0]).any()


def test_a_layer_that_is_not_there_passes_everything_on():
    x = jax.random.normal(KEY, (2, 4, 4, 8))
    y, pull = jax.vjp(lambda x: layer(x, kind=4), x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(pull(2 * x)[0], 2 * x)


def test_under_vmap_each_is_itself():
    x = jax.random.normal(KEY, (3, 2, 4, 4, 8))
    # In turn or alone, the very same instructions run.
    together = jax.jit(jax.vmap(layer))(x)
    np.testing.assert_array_equal(together, jnp.stack([jax.jit(layer)(one) for one in x]))


def test_the_input_of_a_root_has_no_derivative():
    variants = (reference.Variant("conv", (3,), 1, 1, "relu6"),)
    params = {"conv": jnp.ones((3, 3, 8, 8)), "norm_out": ops.norm_params(8)}
    x = jax.random.normal(KEY, (2, 4, 4, 8))

    def loss(params, x, root):
        return (kernels_lib.apply(variants, params, x, 0, setting(8, 8), root) ** 2).sum()

    (dp, dx), (ep, ex) = (jax.grad(loss, (0, 1))(params, x, root) for root in (False, True))
    jax.tree.map(np.testing.assert_array_equal, dp, ep)
    assert (dx != 0).any() and (ex == 0).all()


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """The kernels as in a process that has none, compiled in a folder of its own."""
    monkeypatch.setattr(compile_kernels, "CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compile_kernels.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    compile_kernels._library.cache_clear()
    yield tmp_path
    compile_kernels._library.cache_clear()


def test_without_a_compiler_a_warning_says_so(anew, monkeypatch, caplog):
    monkeypatch.setattr(compile_kernels.shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        assert not compile_kernels.available()
    assert "no C++ compiler was found" in caplog.text


def test_a_compiler_that_fails_leaves_nothing_and_is_a_warning(anew, monkeypatch, caplog):
    monkeypatch.setattr(compile_kernels, "FLAGS", ("--no-such-flag",))
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        assert not compile_kernels.available()
    assert "no-such-flag" in caplog.text
    assert list((anew / "cache").iterdir()) == []


def test_kernels_are_compiled_once(anew, monkeypatch):
    def run(command, **options):
        if "-o" in command:
            calls.append(command)
            open(command[command.index("-o") + 1], "w").close()
        return subprocess.CompletedProcess(command, 0, stdout=b"1.0")

    calls = []
    monkeypatch.setattr(compile_kernels.subprocess, "run", run)
    assert compile_kernels._compiled() == compile_kernels._compiled()
    assert len(calls) == 1


def test_a_cache_that_cannot_be_written_is_replaced(anew, monkeypatch):
    (anew / "file").write_text("")
    monkeypatch.setattr(compile_kernels, "CACHE", str(anew / "file" / "cache"))
    assert compile_kernels._compiled().parent.parent == anew / "tmp"
