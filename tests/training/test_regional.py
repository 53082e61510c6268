"""Programs of layers, run one after another: the numbers of one program for all children."""

import contextlib
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fnas_jax import layered
from fnas_jax.core import devices
from fnas_jax.core.types import UserError
from fnas_jax.layers import cases
from fnas_jax.layers.spec import LayerSpec
from fnas_jax.networks import elastic, mobile_spaces, regions
from fnas_jax.networks.dense import Dense
from fnas_jax.objectives import classification
from fnas_jax.training import child, host_loop, layer_programs, population, regional, streaming
from fnas_jax.training.config import Children, Recipe
from fnas_jax.training.minibatches import Data, Pipeline
from tests import forced
from tests.networks import agreement
from tests.networks.agreement import CHANNELS, CLASSES, SPACES

# 56 training images are three minibatches and a rest, 40 evaluation images two batches and a rest.
SETTINGS = Children(
    batch_size=16, eval_batch=18, lr=0.1, label_smoothing=0.1, weight_decay=0.01, max_grad_norm=0.5
)
STEPS = 7  # two epochs and a part
SMALL = SPACES["macro"]
ACTIVE = np.array([True, False, True])


class Gate(nn.Module):
    """A layer of the user's own."""

    stride: int
    features: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.features, (3, 3), (self.stride, self.stride), use_bias=False)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train)(x))


OWN = layered.make(
    [
        layered.stage(8, {"own": layered.own(Gate), "k3": layered.conv(3)}, stride=2),
        layered.stage(8, {"own": layered.own(Gate), "k3": layered.conv(3)}, optional=True),
    ],
    stem=4,
    head=0,
)


def images(count, seed):
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    shape = (count, 7, 9, CHANNELS)
    return rng.standard_normal(shape, np.float32) + labels[:, None, None, None], labels


DATA = Data(*images(56, 0), *images(40, 1))


def noisy(key, images, masks=None):
    """Another view of images for each step."""
    return images + 0.1 * jax.random.normal(key, images.shape), masks


def context(space, by_layers, mesh=None, **keys):
    net = elastic.make(space, CHANNELS, CLASSES, "branched")
    pipeline = Pipeline(lambda x: x / 2, noisy)
    one = child.Context(net, SETTINGS, pipeline, classification.of(CLASSES))
    made = population.Context(one, mesh or devices.children_mesh(jax.devices()[:1]), **keys)
    if not by_layers:
        return made
    found = regions.make(space, CHANNELS, CLASSES)
    return made._replace(by=functools.partial(regional.compiled, found))


def given(ctx, space, count=3):
    archs = np.resize(agreement.every_choice(space), (count, len(space.cardinalities)))
    archs = np.asarray(space.canonical(jnp.asarray(archs)))
    keys = jax.random.key_data(jax.random.split(jax.random.key(3), count))
    return devices.shard((archs, np.resize(ACTIVE, count), keys), ctx.mesh)


def trained(ctx, space, make=population.make, steps=STEPS, count=3, more=()):
    data = devices.replicate(DATA, ctx.mesh)
    last = devices.replicate(np.int32(steps), ctx.mesh)
    return make(ctx)(data, *given(ctx, space, count), last, *more)


def chunks(size, ctx):
    """Trains on so many images at a time."""
    run = streaming.make(ctx, size)
    return lambda data, *of: run(jax.tree.map(np.asarray, data), *of)


def of_active(found):
    return jax.tree.map(lambda x: np.asarray(x)[ACTIVE], jax.device_get(found))


def assert_same(space, tolerance=1e-4, **keys):
    first, second = (
        of_active(trained(context(space, by, keep=True), space, **keys)) for by in (False, True)
    )
    chex.assert_trees_all_close(second.outcome, first.outcome, atol=tolerance)
    agreement.assert_close(second.params, first.params, tolerance)
    agreement.assert_close(second.stats, first.stats, tolerance)
    assert first.outcome.accuracy.max() > 0.5  # something was learnt


def test_children_are_those_of_one_program_for_all():
    assert_same(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnas", "mobilenetv3", "layered", "own"])
def test_children_of_every_space_are(name):
    # Rounding grows from step to step, and more where squeeze-excitation has no gate.
    assert_same(OWN if name == "own" else SPACES[name], tolerance=0.02)


def test_trainings_in_parts_are_those_without():
    """And begin from the pool, each child from its own source there."""

    def start(pool, arch, source):
        fresh = elastic.make(SMALL, CHANNELS, CLASSES, "branched").init(jax.random.key(0), arch)
        return fresh | {"classifier": fresh["classifier"] * pool + source}

    whole, parts = (context(SMALL, True, start=start) for _ in range(2))
    mesh = whole.mesh
    more = devices.replicate(np.float32(2), mesh), devices.shard(np.arange(3.0), mesh)
    first, second = (
        of_active(trained(ctx, SMALL, make, more=more))
        for ctx, make in ((whole, population.make), (parts, functools.partial(chunks, 1000)))
    )
    chex.assert_trees_all_close(second, first, atol=1e-5)
    begun = of_active(trained(context(SMALL, True, start=start), SMALL, steps=0, more=more))
    assert (begun.params["classifier"][1] - begun.params["classifier"][0]).mean() > 1.5


def test_images_come_in_chunks_as_for_one_program_for_all():
    """In spans that begin later, and several parts of the evaluation images."""
    first, second = (
        of_active(trained(context(SMALL, by, keep=True), SMALL, functools.partial(chunks, 24)))
        for by in (False, True)
    )
    chex.assert_trees_all_close(second.outcome, first.outcome, atol=1e-4)
    agreement.assert_close(second.params, first.params, 1e-4)


def test_an_epoch_begins_where_the_span_says():
    found = []
    for by in (False, True):
        ctx = context(SMALL, by)
        steps_of, (archs, active, keys) = streaming.compiled(ctx), given(ctx, SMALL)
        children = population.Child(archs, active, population.checked_keys(archs, active, keys))
        span = streaming.span_of(ctx.mesh, devices.replicate(DATA, ctx.mesh), 3, 6, 2, STEPS)
        begun = steps_of.begin(None, children)
        found.append(of_active(steps_of.advance(span, begun, children)))
    chex.assert_trees_all_close(*found, atol=1e-4)


def test_averages_are_judged():
    recipe = Recipe(ema=0.5)
    found = []
    for by in (False, True):
        ctx = context(SMALL, by)
        ctx = ctx._replace(child=ctx.child._replace(recipe=recipe))
        found.append(of_active(trained(ctx, SMALL)).outcome)
    chex.assert_trees_all_close(*found, atol=1e-4)
    last = of_active(trained(context(SMALL, True), SMALL)).outcome
    assert np.abs(last.loss - found[1].loss).max() > 1e-3


def test_a_recipe_that_mixes_images_is_refused():
    ctx = context(SMALL, True)
    with pytest.raises(ValueError, match="not mixed"):
        population.make(ctx._replace(child=ctx.child._replace(recipe=Recipe(mixup=0.2))))


def test_a_training_goes_on_where_it_was_cut():
    ctx = context(SMALL, True)
    steps_of = streaming.compiled(ctx)
    archs, active, keys = given(ctx, SMALL)
    children = population.Child(archs, active, population.checked_keys(archs, active, keys))
    data = devices.replicate(DATA, ctx.mesh)

    def after(*cuts):
        progress = steps_of.begin(None, children)
        for first, last in zip((0, *cuts), (*cuts, STEPS), strict=True):
            span = streaming.span_of(ctx.mesh, data, first, last, 0, STEPS)
            progress = steps_of.advance(span, progress, children)
        return of_active(progress)

    chex.assert_trees_all_close(after(), after(2, 5), atol=1e-6)


def test_places_that_are_not_active_cost_nothing_and_learn_nothing(monkeypatch):
    chains, chain = [], regions.chain
    monkeypatch.setattr(regions, "chain", lambda *of: chains.append(0) or chain(*of))
    ctx = context(SMALL, True, keep=True)
    found = trained(ctx, SMALL)
    assert len(chains) == 2
    assert not found.outcome.accuracy[1]
    begun = trained(ctx, SMALL, steps=0)
    chex.assert_trees_all_equal(*(jax.tree.map(lambda x: x[1], t.params) for t in (found, begun)))


def test_a_layer_is_compiled_once_for_all_children_and_batches(monkeypatch):
    asked, compile_one = [], layer_programs.of_training
    monkeypatch.setattr(
        layer_programs, "of_training", lambda key: asked.append(key) or compile_one(key)
    )
    ctx = context(SMALL, True)
    run, data = population.make(ctx), devices.replicate(DATA, ctx.mesh)
    archs, active, keys = given(ctx, SMALL)
    for _ in range(2):
        asked.clear()
        run(data, archs, active, keys, devices.replicate(np.int32(2), ctx.mesh))
        assert len(asked) == len(set(asked)) > 3
    missed = compile_one.cache_info().misses
    with no_compilation():
        run(data, archs, active, keys, devices.replicate(np.int32(3), ctx.mesh))
    assert compile_one.cache_info().misses == missed


@contextlib.contextmanager
def no_compilation():
    """Fails where JAX compiles anything inside."""
    compiled, listens = [], [True]

    def heard(event, *_, **__):
        if listens and event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(heard)  # for good: not all JAX forget any
    yield
    listens.clear()
    assert not compiled


def test_children_share_the_programs_of_equal_layers():
    """However many there are, no more are compiled than a space has sizes of layers."""
    net = regions.make(SPACES["mnas"], CHANNELS, CLASSES)
    archs = SPACES["mnas"].canonical(SPACES["mnas"].sample(jax.random.key(0), 200))
    chains = [regions.chain(net, arch) for arch in np.asarray(archs)]
    distinct = {placed.region for chain in chains for placed in chain}
    slots = set(regions.slots_of(net.context))
    assert len(distinct) <= sum(len(cases.of(slot)) for slot in slots) < 200
    for arch, chain in zip(np.asarray(archs), chains, strict=True):
        layers = mobile_spaces.layers_of(net.spec, arch)
        inside = [placed.spec for placed in chain[1:-1]]
        assert inside == [layer for *_, layer in layers]
        assert chain[0].region.root and not any(placed.region.root for placed in chain[1:])


@pytest.mark.parametrize("name", ["mnas", "macro", "mobilenetv3", "layered"])
def test_the_case_of_a_layer_is_that_of_the_branch(name):
    net = regions.make(SPACES[name], CHANNELS, CLASSES)
    for slot in set(regions.slots_of(net.context)):
        for choice in slot.choices:
            for cin, cout in slot.widths or ((choice.cin, choice.cout),):
                scaled = choice.op in (1, 2, 3)
                layer = choice._replace(cin=cin, cout=cout) if scaled else choice
                arrays = LayerSpec(*map(jnp.int32, layer))
                index = int(cases.index_of(slot, arrays))
                assert cases.holding(slot, layer) == cases.of(slot)[index]


@pytest.mark.parametrize("name", ["mnas", "macro", "mobilenetv3", "layered"])
def test_parameters_come_together_again(name):
    net = regions.make(SPACES[name], CHANNELS, CLASSES)
    made = elastic.make(SPACES[name], CHANNELS, CLASSES, "branched")
    params, stats = agreement.weights(made, net.some)
    layers, last = regions.split(net.context, params)
    slots = regions.slots_of(net.context)
    vectors = [regions.flat(layer) for layer in layers]
    again = [regions.unflat(slot, v) for slot, v in zip(slots, vectors, strict=True)]
    chex.assert_trees_all_equal(regions.join(net.context, again, last), params)
    zeros = regions.join_stats(net.context, [regions.zero_stats(slot) for slot in slots])
    assert jax.tree.map(np.shape, zeros) == jax.tree.map(np.shape, stats)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_little_goes_from_the_forward_to_the_backward_program(dtype):
    """Of what is as large as images, the results of convolutions; of sums, the last of each."""
    net = regions.make(SPACES["mnas"], CHANNELS, CLASSES)._replace(dtype=dtype)
    chains = [regions.chain(net, arch) for arch in agreement.every_choice(SPACES["mnas"])]
    of_op = {placed.region.case.op: placed for chain in chains for placed in chain[1:-1]}
    assert len(of_op) == 3
    for placed in of_op.values():
        op, gated = placed.region.case.op, placed.region.case.se_hidden > 0
        convolutions = {1: 1, 2: 2, 3: 3}[op]
        # So many pixels are summed in two steps in bfloat16.
        size = layer_programs.Size(16, 8, 8)
        key = layer_programs.Key(placed.region, size, jax.devices()[0])
        _, kept = layer_programs.of_training(key).forward.out_info
        large = [leaf for leaf in kept if len(leaf.shape) == 4 and leaf.shape[0] == size.batch]
        assert len(large) == convolutions and {leaf.dtype for leaf in large} == {jnp.dtype(dtype)}
        # Two sums of each normalisation; a mean and two products of a gate.
        sums = [leaf for leaf in kept if leaf.ndim in (1, 2) and leaf.dtype == jnp.float32]
        assert len(sums) == 2 * convolutions + 3 * gated


@pytest.mark.parametrize("name", ["macro", "own"])
def test_layers_in_bfloat16_are_near_those_in_float32(name):
    """Forwards and backwards, of every kind of layer."""
    space = OWN if name == "own" else SPACES[name]
    nets = [
        regions.make(space, CHANNELS, CLASSES)._replace(dtype=dtype)
        for dtype in (jnp.float32, jnp.bfloat16)
    ]
    rng, size = np.random.default_rng(0), layer_programs.Size(8, 6, 6)
    for long, short in zip(*(regions.chain(net, net.some) for net in nets), strict=True):
        vector = 0.3 + 0.2 * rng.standard_normal(regions.size(long.region.slot), np.float32)
        shape = (*size, long.region.slot.widest("cin"))
        x, spec = rng.standard_normal(shape, np.float32), np.asarray(long.spec, np.int32)
        found = []
        for placed in (long, short):
            key = layer_programs.Key(placed.region, size, jax.devices()[0])
            forward, backward = layer_programs.of_training(key)
            inputs = vector, x.astype(jnp.float32 if placed.region.root else placed.region.dtype)
            y, kept = forward(*inputs, spec)
            assert y.dtype == placed.region.dtype
            gradients = backward(*inputs, spec, kept, jnp.ones_like(y))
            found.append([np.asarray(leaf, np.float32) for leaf in (y, *gradients)])
        for whole, rounded in zip(*found, strict=True):
            scale = np.abs(whole).max() + 1e-3
            assert np.abs(whole - rounded).mean() < 0.05 * scale


def test_a_layer_that_cannot_be_compiled_ends_the_batch(monkeypatch):
    def fails(key):
        raise RuntimeError("no such layer")

    monkeypatch.setattr(layer_programs, "of_training", fails)
    with pytest.raises(RuntimeError, match="no such layer"):
        trained(context(SMALL, True), SMALL)


@pytest.mark.parametrize(
    ("space", "outputs", "words"),
    [("cell", CLASSES, "the space cell"), ("macro", Dense(CLASSES), "each pixel")],
)
def test_networks_that_are_no_chain_are_refused(space, outputs, words):
    with pytest.raises(UserError, match=f"'regional', which is not for .*{words}.*allowed are"):
        regions.make(SPACES[space], CHANNELS, outputs)


def test_an_error_or_an_end_stops_what_is_still_to_be_done(monkeypatch):
    """Nobody waits for children whose results nobody will have."""
    ctx, steps = context(SMALL, True), []
    run, data = population.make(ctx), devices.replicate(DATA, ctx.mesh)
    found = host_loop.gradients

    def ends(one, *inputs):
        steps.append(one)
        if len(steps) == 3:
            one.stop.set()
        return found(one, *inputs)

    monkeypatch.setattr(host_loop, "gradients", ends)
    run(data, *given(ctx, SMALL), devices.replicate(np.int32(2000), ctx.mesh))
    assert len(steps) == 3


_ERROR = """
import time, jax, numpy as np
from tests.training import test_regional as t
mesh = t.devices.children_mesh()
ctx = t.context(t.SMALL, True, mesh)
run, data = t.population.make(ctx), t.devices.replicate(t.DATA, mesh)
given, found, steps = t.given(ctx, t.SMALL, 4), t.host_loop.gradients, []

def fails(one, *inputs):
    steps.append(one.device)
    if one.device == jax.devices()[1] and steps.count(one.device) == 5:
        raise ValueError("no such step")
    return found(one, *inputs)

t.host_loop.gradients = fails
try:
    run(data, *given, t.devices.replicate(np.int32(4000), mesh))
except ValueError as error:
    print(error, steps.count(jax.devices()[0]) < 2000)
"""


def test_an_error_on_one_device_ends_the_others():
    """It is the one that is told, and soon."""
    assert forced.printed(_ERROR, 2).strip() == "no such step True"


_TWO_DEVICES = """
import json, jax
from tests.training import test_regional as t
mesh = t.devices.children_mesh()
assert mesh.size == 2
found = t.trained(t.context(t.SMALL, True, mesh), t.SMALL, count=4)
print(json.dumps([found.outcome.accuracy.tolist(), found.outcome.loss.tolist()]))
"""


def test_two_devices_give_the_results_of_one():
    accuracy, loss = json.loads(forced.printed(_TWO_DEVICES, 2))
    one = trained(context(SMALL, True), SMALL, count=4).outcome
    np.testing.assert_allclose(accuracy, one.accuracy, atol=1e-3)
    np.testing.assert_allclose(loss, one.loss, rtol=1e-4)
