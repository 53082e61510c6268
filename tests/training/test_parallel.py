"""One network on all devices: the steps of one device, of minibatches that the devices share."""

import functools
import json

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from fnas_jax.core import devices
from fnas_jax.training import child, minibatches, optimizer, parallel, streaming
from fnas_jax.training import recipe as recipes
from fnas_jax.training.config import Recipe
from fnas_jax.training.minibatches import Data, Pipeline
from tests import forced
from tests.training.test_child import CONTEXT, toy_data

NO_ARCH = jnp.zeros(0, jnp.int32)
KEY = jax.random.key(5)
STEPS = 13  # epochs of 90 images have 5 of 16


def toy_context(**recipe) -> child.Context:
    """That of test_child.py, of the network of one architecture."""
    net, arch = CONTEXT.network, jnp.zeros(1)
    fixed = net._replace(
        init=lambda key, _: net.init(key, arch),
        apply=lambda params, _, x: net.apply(params, arch, x),
        apply_eval=lambda params, stats, _, x, collect: net.apply_eval(
            params, stats, arch, x, collect
        ),
    )
    noisy = Pipeline(lambda x: x, lambda key, x, masks=None: (x + jax.random.normal(key), masks))
    return CONTEXT._replace(network=fixed, pipeline=noisy, recipe=Recipe(**recipe))


def mesh_of(count: int) -> Mesh:
    return Mesh(np.asarray(jax.devices()[:count]), (devices.BATCH,))


def spans(own, data, chunk, done=0):
    return streaming.spans(own.child.settings, own.mesh, data, STEPS, chunk, done)


def trained(made, cuts, data=None, chunk=None):
    """(progress, `Trained`) of a training of `parallel.make` that is cut at some steps."""
    own, compiled = made
    mesh = own.mesh
    placed = parallel.place(own, toy_data() if data is None else data, chunk)
    progress = devices.replicate(compiled.begin(KEY), mesh)
    key, done = devices.replicate(KEY, mesh), 0
    for images, first, last in streaming.spans(
        own.child.settings, own.mesh, placed, STEPS, chunk, 0
    ):
        for upto in [*(cut for cut in cuts if done < cut < last), last]:
            span = parallel.span(own, done, upto, STEPS, first)
            progress, done = compiled.advance(images, key, progress, span), upto
    return jax.device_get((progress, parallel.judged(own, compiled, placed, progress, chunk)))


def expected(ctx):
    """(parameters, statistics, outcome) by `child`."""

    @jax.jit
    def run(data, steps):
        params = child.train(ctx, data, NO_ARCH, KEY, steps)
        return params, *child.evaluate(ctx, data, NO_ARCH, params, jnp.bool_(True))

    return jax.device_get(run(toy_data(), jnp.int32(STEPS)))


@pytest.mark.parametrize("recipe", [{}, {"ema": 0.6, "mixup": 0.3}])
def test_on_one_device_it_is_the_training_of_a_child_wherever_it_is_cut(recipe):
    ctx = toy_context(**recipe)
    params, stats, outcome = expected(ctx)
    made = parallel.make(ctx, mesh_of(1))
    for cuts in ((), (1, 5, 8), tuple(range(1, STEPS))):
        progress, found = trained(made, cuts)
        chex.assert_trees_all_equal(found.params, params)
        chex.assert_trees_all_equal((found.stats, found.outcome), (stats, outcome))
        assert np.isfinite(progress.loss) and found.outcome.accuracy > 0.5


def test_a_network_for_several_goes_on_from_parameters_as_the_child_that_it_is_told_to_be():
    arch, host = np.ones(1), Data(*map(np.asarray, toy_data()))
    start = jax.tree.map(lambda leaf: leaf + 0.1, CONTEXT.network.init(KEY, arch))

    @jax.jit
    def child_alone(data, arch, start, steps):
        params = child.train(CONTEXT, data, arch, KEY, steps, start)
        return params, *child.evaluate(CONTEXT, data, arch, params, jnp.bool_(True))

    params, stats, outcome = child_alone(toy_data(), arch, start, jnp.int32(STEPS))
    for chunk in (None, 90):
        own, compiled = parallel.make(CONTEXT, mesh_of(1))
        placed = parallel.place(own, host, chunk)
        progress = devices.replicate(compiled.begin(KEY, start, arch), own.mesh)
        key, done = devices.replicate(KEY, own.mesh), 0
        for images, first, last in streaming.spans(
            own.child.settings, own.mesh, placed, STEPS, chunk, 0
        ):
            for upto in (7, last):
                span = parallel.span(own, done, upto, STEPS, first)
                progress, done = compiled.advance(images, key, progress, span, arch), upto
        found = parallel.judged(own, compiled, placed, progress, chunk, arch)
        chex.assert_trees_all_equal((found.params, found.stats), (params, stats))
        chex.assert_trees_all_close(found.outcome, outcome, rtol=1e-6)


def test_images_in_chunks_may_be_cut_anywhere_and_are_those_of_streaming():
    host, ctx = Data(*map(np.asarray, toy_data())), toy_context()
    made = parallel.make(ctx, mesh_of(1))
    whole, cut = (trained(made, cuts, host, 40) for cuts in ((), (1, 3, 7, 8)))
    chex.assert_trees_all_equal(whole[0]._replace(loss=0), cut[0]._replace(loss=0))
    chex.assert_trees_all_equal(whole[1], cut[1])
    progress = child.begin(ctx, NO_ARCH, KEY)
    advance = jax.jit(functools.partial(child.advance, ctx))
    for rows, (first, last) in streaming.visits(90, 16, STEPS, 40):
        data = Data(host.train_images[rows], host.train_labels[rows], *host[2:])
        progress = advance(data, NO_ARCH, KEY, progress, first, last, STEPS)
    np.testing.assert_allclose(whole[0].vector, progress.vector, rtol=1e-5, atol=1e-6)


def test_chunks_that_are_done_are_not_read_again():
    host = Data(*map(np.asarray, toy_data()))
    own, _ = parallel.make(toy_context(), mesh_of(1))
    every = [(a, b) for _, a, b in spans(own, host, 40, 0)]
    for done in range(STEPS + 1):
        left = [(a, b) for _, a, b in spans(own, host, 40, done)]
        assert left == [span for span in every if span[1] > done]


@pytest.mark.parametrize(
    ("batch", "images", "here", "count"),
    [
        (64, 900, 4, 4),
        (64, 900, 3, 2),
        (64, 900, 9, 4),
        (20, 900, 4, 1),
        (96, 900, 3, 3),
        (256, 48, 4, 3),
        (31, 900, 2, 1),
    ],
)
def test_as_many_devices_share_a_minibatch_as_divide_it_into_parts_of_16(
    monkeypatch, batch, images, here, count
):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1] * here)
    monkeypatch.setattr(devices, "Mesh", lambda own, axes: (len(own), axes))
    assert parallel.mesh_of(batch, images) == (count, (devices.BATCH,))


def by_hand(ctx, count: int) -> np.ndarray:
    """Parameters after one step by the mean of the gradients of each part of the minibatch."""
    data, (_, key_order, key_augment) = toy_data(), jax.random.split(KEY, 3)
    params = ctx.network.init(jax.random.split(KEY, 3)[0], NO_ARCH)
    vector, as_params = jax.flatten_util.ravel_pytree(params)
    rows = jax.random.permutation(jax.random.fold_in(key_order, 0), 90)[:16]
    gradients = []
    for place, own in enumerate(np.split(np.asarray(rows), count)):
        key = jax.random.fold_in(jax.random.fold_in(key_augment, 0), place)
        images = data.train_images[own] + jax.random.normal(key)
        labels = data.train_labels[own]
        mixed = recipes.mix(ctx.recipe, jax.random.fold_in(KEY, 3), 0, images, labels)
        loss = functools.partial(child.loss, ctx, arch=NO_ARCH, batch=mixed)
        gradients.append(jax.grad(lambda v, loss=loss: loss(as_params(v)))(vector))
    gradient = np.mean(gradients, axis=0)
    clip = min(1.0, ctx.settings.max_grad_norm / float(optax.global_norm(gradient)))
    decayed = jax.flatten_util.ravel_pytree(optimizer.weights(params))[0]
    step = clip * gradient + ctx.settings.weight_decay * decayed * vector
    rate = optimizer.learning_rate(ctx.settings, jnp.int32(0), jnp.int32(STEPS))
    return np.asarray(vector - rate * (1 + ctx.settings.momentum) * step)


def one_step(made) -> np.ndarray:
    """Parameters [devices, P] after one step, of each device."""
    own, compiled = made
    progress = devices.replicate(compiled.begin(KEY), own.mesh)
    given = parallel.place(own, toy_data(), None), devices.replicate(KEY, own.mesh)
    after = compiled.advance(*given, progress, parallel.span(own, 0, 1, STEPS, 0))
    return np.stack([np.asarray(part.data) for part in after.vector.addressable_shards])


def rows_seen(count: int) -> np.ndarray:
    """Labels of a minibatch, of one device after another; labels are the rows."""
    data = toy_data()._replace(train_labels=jnp.arange(90))
    plain = Pipeline(lambda x: x, minibatches.unchanged)
    batches = minibatches.make(data, plain, 16, KEY, KEY, devices.BATCH)

    def load():
        return minibatches.load(batches, jnp.arange(90), jnp.int32(2), jnp.int32(0))[1]

    spread = PartitionSpec(devices.BATCH)
    return np.asarray(
        jax.shard_map(load, mesh=mesh_of(count), in_specs=(), out_specs=spread, check_vma=False)()
    )


def check_devices(count: int) -> dict[str, float]:
    """What `count` devices do, for the test below."""
    ctx = toy_context(mixup=0.3)
    made = parallel.make(ctx, mesh_of(count))
    steps = one_step(made)
    assert len(steps) == count
    np.testing.assert_array_equal(steps, steps[:1].repeat(count, axis=0))
    np.testing.assert_allclose(steps[0], by_hand(ctx, count), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(rows_seen(count), np.arange(32, 48))
    whole, cut = (trained(made, cuts) for cuts in ((), (2, 5, 9)))
    chex.assert_trees_all_equal(whole[0]._replace(loss=0), cut[0]._replace(loss=0))
    chex.assert_trees_all_equal(whole[1], cut[1])
    return {"accuracy": float(whole[1].outcome.accuracy)}


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_devices_make_the_steps_of_the_mean_over_their_parts(count):
    code = (
        "import json; from tests.training import test_parallel as t;"
        f"print(json.dumps(t.check_devices({count})))"
    )
    found = json.loads(forced.printed(code, 4))
    one = trained(parallel.make(toy_context(mixup=0.3), mesh_of(1)), ())[1].outcome.accuracy
    assert found["accuracy"] == pytest.approx(float(one), abs=0.1)


def test_a_minibatch_that_cannot_be_divided_is_refused():
    batches = minibatches.make(toy_data(), CONTEXT.pipeline, 16, KEY, KEY, devices.BATCH)
    load = functools.partial(minibatches.load, batches, jnp.arange(90), jnp.int32(0))
    with pytest.raises(ValueError, match="16 images cannot be divided among 3 devices"):
        jax.vmap(lambda _: load(jnp.int32(0)), axis_name=devices.BATCH)(jnp.arange(3))
