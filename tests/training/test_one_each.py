"""A program for each child: the numbers of one program for all, and no more compiled than that."""

import json
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.training import one_each, population, streaming
from tests import forced
from tests.training.test_child import CONTEXT, STEPS, toy_data, toy_network

ARCHS = np.array([[0], [1], [2], [0]])


def told(asked, arch):
    """The toy network of one architecture, whatever it is given; `asked` remembers which."""
    asked.append(arch.tolist())
    net = toy_network()

    def apply(params, given, images):
        return net.apply(params, jnp.asarray(arch), images)

    def apply_eval(params, stats, given, images, collect):
        return net.apply_eval(params, stats, jnp.asarray(arch), images, collect)

    return net._replace(apply=apply, apply_eval=apply_eval)


def context(asked=None, mesh=None, **keys):
    own = None if asked is None else lambda arch: told(asked, arch)
    mesh = mesh or devices.children_mesh(jax.devices()[:1])
    return population.Context(CONTEXT, mesh, own=own, **keys)


def given(ctx, archs=ARCHS, active=(True,) * 4):
    keys = jax.random.key_data(jax.random.split(jax.random.key(3), len(archs)))
    return devices.shard((np.asarray(archs), np.asarray(active), keys), ctx.mesh)


def trained(ctx, make=population.make, **keys):
    data = devices.replicate(toy_data(), ctx.mesh)
    return make(ctx)(data, *given(ctx, **keys), devices.replicate(np.int32(STEPS), ctx.mesh))


def test_children_are_those_of_one_program_for_all():
    whole, asked = trained(context(keep=True)), []
    each = trained(context(asked, keep=True))
    chex.assert_trees_all_close(each, whole, rtol=1e-5, atol=1e-6)
    assert {tuple(arch) for arch in asked} == {(0,), (1,), (2,)}


def test_nobody_compiles_for_a_place_that_is_not_active():
    asked, active = [], [True, False, True, False]
    some, whole = trained(context(asked), active=active), trained(context())
    assert [2] in asked and [1] not in asked
    chosen = [jax.tree.map(lambda x: x[np.array(active)], t.outcome) for t in (some, whole)]
    chex.assert_trees_all_close(*chosen, rtol=1e-5)
    assert not some.outcome.ok[1] and not some.outcome.accuracy[3]


def test_where_nobody_is_active_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(one_each, "_compile", lambda *_: pytest.fail("compiled"))
    found = trained(context([]), active=[False] * 4)
    assert not found.outcome.ok.any() and found.outcome.loss.shape == (4,)


def test_programs_serve_again_until_there_are_too_many(monkeypatch):
    compiled, compile_one = [], one_each._compile
    monkeypatch.setattr(one_each, "_compile", lambda *of: compiled.append(0) or compile_one(*of))
    monkeypatch.setattr(one_each, "KEPT", 2)
    ctx = context([])
    run, data = population.make(ctx), devices.replicate(toy_data(), ctx.mesh)

    def train(archs):
        steps = devices.replicate(np.int32(2), ctx.mesh)
        run(data, *given(ctx, archs, (True,) * len(archs)), steps)
        return len(compiled)

    assert train([[0], [1], [2], [0]]) == 3  # equal ones share one, a batch keeps all of its own
    assert train([[2], [1]]) == 3
    assert train([[0]]) == 4  # the oldest of three was dropped


def test_a_program_that_cannot_be_compiled_ends_the_batch_and_is_tried_again(monkeypatch):
    """Those behind it are not waited for."""
    tried = []

    def fails(of, arch, *_):
        tried.append(arch[0])
        time.sleep(0.2)
        raise RuntimeError("no such layer")

    monkeypatch.setattr(devices, "cores", lambda: 1)
    ctx = context([])
    run, data = population.make(ctx), devices.replicate(toy_data(), ctx.mesh)
    with monkeypatch.context() as patch:
        patch.setattr(one_each, "_compile", fails)
        with pytest.raises(RuntimeError, match="no such layer"):
            run(data, *given(ctx), devices.replicate(np.int32(2), ctx.mesh))
    assert tried == [0] or tried == [0, 1]  # the second may have begun
    assert run(data, *given(ctx), devices.replicate(np.int32(2), ctx.mesh)).outcome.ok.all()


def test_trainings_in_parts_have_programs_of_their_own_too():
    asked = []

    def chunks(ctx):
        run = streaming.make(ctx, 16)
        return lambda data, *of: run(jax.tree.map(np.asarray, data), *of)

    whole, each = (trained(ctx, chunks) for ctx in (context(), context(asked)))
    chex.assert_trees_all_close(each.outcome, whole.outcome, rtol=1e-5)
    assert {tuple(arch) for arch in asked} == {(0,), (1,), (2,)}


def test_every_child_starts_from_its_own_source_in_the_common_pool():
    def start(pool, arch, source):
        fresh = toy_network().init(jax.random.key(0), arch)
        return fresh | {"w": fresh["w"] * 0 + (pool + source) * (1 + arch[0])}

    ctx = context([], start=start)
    archs, active = np.arange(3)[:, None], np.ones(3, bool)
    data, steps, pool = devices.replicate((toy_data(), np.int32(0), np.float32(2)), ctx.mesh)
    source = devices.shard(np.array([0.0, 10.0, 20.0], np.float32), ctx.mesh)
    found = population.make(ctx)(data, *given(ctx, archs, active), steps, pool, source)
    np.testing.assert_allclose(found.params["w"][:, 0, 0], [2.0, 24.0, 66.0], rtol=1e-6)


_TWO_DEVICES = """
import json, jax
from tests.training import test_one_each as t
mesh = t.devices.children_mesh()
assert mesh.size == 2
ctx = t.context([], mesh, keep=True)
found = t.trained(ctx)
assert len(found.params["w"].addressable_shards) == 2
for active in ([True, True, False, False], [False, False, True, True], [False] * 4):
    assert t.trained(ctx, active=active).outcome.ok.tolist() == active
print(json.dumps([found.outcome.accuracy.tolist(), found.outcome.loss.tolist()]))
"""


def test_two_devices_give_the_results_of_one():
    accuracy, loss = json.loads(forced.printed(_TWO_DEVICES, 2))
    one = trained(context([])).outcome
    np.testing.assert_allclose(accuracy, one.accuracy, atol=1e-3)
    np.testing.assert_allclose(loss, one.loss, rtol=1e-4)
