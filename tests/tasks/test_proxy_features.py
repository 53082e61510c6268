"""Zero-cost proxies as features: of which images and networks, how predicted, kept and left out."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import layered, main, registry
from fnas_jax.core import config as config_lib
from fnas_jax.core import hosts, keep
from fnas_jax.core.keep import Keep, on_disk
from fnas_jax.core.mapped import Mapped, Stored
from fnas_jax.core.types import Features
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.networks import elastic, proxies
from fnas_jax.networks.proxies import NAMES
from fnas_jax.spaces import categorical
from fnas_jax.tasks import data, images, proxy_features

SPACE = categorical.make((4, 5, 3, 4))
NOTHING = Features(("x",), lambda archs: jnp.zeros((len(archs), 1)), "{}")


def configured(**changed):
    flat = config_lib.flatten(config_lib.default())
    flat |= {
        "task.name": "images/digits",
        "space.blocks": 1,
        "space.strides": (2,),
        "space.width": 0.5,
        "space.head": 16,
        "features.proxies": True,
    }
    flat |= {name.replace("__", "."): value for name, value in changed.items()}
    return config_lib.validate(config_lib.nest(flat))


@pytest.fixture(scope="module")
def ctx():
    config = configured()
    space = registry.build_space(config)
    return images.train_context(config, space, images.load(config))


def drawn(count, seed=0):
    return np.asarray(SPACE.sample(jax.random.key(seed), count))


def additive(archs, seed=3):
    """A number that every decision adds to, and some noise that none says."""
    rng = np.random.default_rng(seed)
    tables = [rng.standard_normal(k) for k in SPACE.cardinalities]
    return sum(table[archs[:, i]] for i, table in enumerate(tables))


def test_images_are_training_images_normalised_and_not_moved(ctx):
    batch = proxy_features.minibatch(ctx)
    dataset = ctx.dataset
    assert batch.images.shape == (64, 8, 8, 1) and batch.images.dtype == np.float32
    own = data.normalise(dataset.train_images, dataset.mean, dataset.std).reshape(-1, 64)
    for image, target in zip(batch.images.reshape(-1, 64), batch.targets, strict=True):
        rows = np.flatnonzero((own == image).all(1))
        assert len(rows) and target in dataset.train_labels[rows]
    assert len(np.unique(batch.targets)) > 5
    first = own[:64].reshape(batch.images.shape)
    assert not np.array_equal(first, batch.images)  # sets may be sorted by class
    again = proxy_features.minibatch(ctx)
    assert all(np.array_equal(a, b) for a, b in zip(batch, again, strict=True))


@pytest.mark.parametrize(
    ("side", "size", "count"), [(8, 4, 64), (100, 64, 26), (500, 64, 16), (500, 4, 4), (500, 1, 2)]
)
def test_large_images_are_fewer_and_none_is_there_twice(ctx, side, size, count):
    large = np.repeat(np.arange(100, dtype=np.uint8), 2)[:, None, None, None]
    large = np.broadcast_to(large, (200, side, side, 1))
    dataset = ctx.dataset._replace(train_images=large, train_labels=np.arange(200) // 2)
    settings = dataclasses.replace(ctx.settings, batch_size=size)
    given = ctx._replace(dataset=dataset, settings=settings)
    found = proxy_features.minibatch(given)
    assert len(found.images) == count == len(np.unique(found.targets))
    shown = found.images[:, 0, 0] * dataset.std + dataset.mean
    np.testing.assert_allclose(shown[:, 0], found.targets, atol=1e-3)


def test_images_may_stay_in_their_file(ctx, tmp_path):
    np.save(tmp_path / "x.npy", ctx.dataset.train_images)
    there = np.load(tmp_path / "x.npy", mmap_mode="r")
    place = Stored(tmp_path / "x.npy", there.offset, there.shape, there.dtype)
    images = Mapped([place], there.shape[1:], there.dtype)
    there = ctx._replace(dataset=ctx.dataset._replace(train_images=images))
    for a, b in zip(proxy_features.minibatch(there), proxy_features.minibatch(ctx), strict=True):
        np.testing.assert_array_equal(a, b)


def test_networks_are_different_ones_in_canonical_form(ctx):
    archs = proxy_features.drawn(ctx.space)
    assert archs.shape == (proxy_features.MEASURED, len(ctx.space.cardinalities))
    assert len(np.unique(archs, axis=0)) == len(archs)
    np.testing.assert_array_equal(archs, ctx.space.canonical(jnp.asarray(archs)))
    assert len(proxy_features.drawn(categorical.make((2, 2)))) == 4


@pytest.mark.parametrize("decisions", [12, 50])
def test_the_regression_predicts_best_what_is_left_out(decisions):
    """Each shrinkage by solving anew without each network."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, decisions))
    y = x @ rng.standard_normal(decisions) + rng.standard_normal(30)

    def fit(x, y, shrinkage):
        middle, mean = x.mean(0), y.mean()
        square = (x - middle).T @ (x - middle) + shrinkage * np.eye(decisions)
        weights = np.linalg.solve(square, (x - middle).T @ (y - mean))
        return weights, mean - middle @ weights

    def error(shrinkage):
        left_out = []
        for i in range(30):
            weights, offset = fit(np.delete(x, i, 0), np.delete(y, i), shrinkage)
            left_out.append((y[i] - x[i] @ weights - offset) ** 2)
        return np.mean(left_out)

    best = min(proxy_features.SHRINKAGE, key=error)
    weights, offset = fit(x, y, best)
    line = proxy_features.regression(x, y)
    np.testing.assert_allclose(line.weights, weights, rtol=1e-6, atol=1e-9)
    assert line.offset == pytest.approx(offset)
    assert line.share == pytest.approx(1 - error(best) / y.var())


def test_noise_has_no_share():
    rng = np.random.default_rng(1)
    line = proxy_features.regression(rng.standard_normal((40, 30)), rng.standard_normal(40))
    assert line.share < proxy_features.LEAST


def test_what_decisions_say_is_known_of_all_and_what_they_do_not_is_left_out(caplog):
    caplog.set_level(logging.INFO)
    archs, others = drawn(64), drawn(200, 1)
    values = np.random.default_rng(2).standard_normal((64, 5))
    values[:, NAMES.index("synflow")] = np.exp(additive(archs))  # only its order means something
    values[:, NAMES.index("jacov")] = np.nan
    values[:, NAMES.index("naswot")] = 7.0
    part = proxy_features.predicted(SPACE, NOTHING, archs, values)
    assert part.names == ("synflow",)
    found = np.asarray(jax.jit(part.of)(jnp.asarray(others)))
    assert found.shape == (200, 1)
    assert np.corrcoef(found[:, 0], additive(others))[0, 1] > 0.97
    assert "jacov is the same for all networks, or no number" in caplog.text
    assert "naswot is the same for all networks, or no number" in caplog.text
    assert "snip of 64 networks, 0% of its variance" in caplog.text
    lost = [line for line in caplog.text.splitlines() if line.endswith(": it is left out")]
    assert len(lost) == 4 and "synflow of 64 networks, 9" in caplog.text


def test_what_else_is_known_says_more_than_decisions_alone():
    archs = drawn(64)
    of = lambda a: jnp.sin(3.0 * a.sum(1, keepdims=True))  # noqa: E731
    values = np.repeat(np.asarray(of(archs)), 5, axis=1)
    assert proxy_features.predicted(SPACE, NOTHING, archs, values) is None
    known = Features(("x",), of, "{}")
    assert proxy_features.predicted(SPACE, known, archs, values).names == NAMES


def test_a_failed_network_does_not_spoil_the_others():
    archs = drawn(64)
    values = np.repeat(additive(archs)[:, None], 5, axis=1)
    values[:5] = np.nan
    part = proxy_features.predicted(SPACE, NOTHING, archs, values)
    mine = np.asarray(part.of(jnp.asarray(archs)))[:, 0]
    assert part.names == NAMES and np.corrcoef(mine, additive(archs))[0, 1] > 0.97
    values[: 64 - proxy_features.FEWEST + 1] = np.nan
    assert proxy_features.predicted(SPACE, NOTHING, archs, values) is None


@pytest.fixture
def counted(monkeypatch):
    """Stands for the measurement, and counts how often it is made."""
    calls = []

    def measured(space, outputs, loss, batch, archs):
        calls.append(archs)
        return np.repeat(archs.sum(1)[:, None], 5, axis=1).astype(np.float64)

    monkeypatch.setattr(proxy_features, "measured", measured)
    return calls


def test_what_was_measured_is_kept_for_the_very_same(ctx, counted, tmp_path):
    kept = ctx._replace(keep=on_disk(tmp_path, 0.0))
    first, again = (proxy_features.part(kept, NOTHING) for _ in range(2))
    assert len(counted) == 1 and first.identity == again.identity
    weights = ctx.objective.known._replace(weights=(2.0,))
    others = [
        kept._replace(dataset=ctx.dataset._replace(mean=ctx.dataset.mean + 1)),  # other images
        kept._replace(objective=ctx.objective._replace(name="another")),
        kept._replace(objective=ctx.objective._replace(known=weights)),
        kept._replace(space=ctx.space._replace(name="another")),
        kept._replace(dataset=ctx.dataset._replace(num_classes=11)),
    ]
    for number, other in enumerate(others):
        proxy_features.part(other, NOTHING)
        assert len(counted) == 2 + number


def test_what_failed_everywhere_is_not_measured_again(ctx, tmp_path, monkeypatch):
    calls = []

    def measured(space, outputs, loss, batch, archs):
        calls.append(archs)
        return np.full((len(archs), 5), np.nan)

    monkeypatch.setattr(proxy_features, "measured", measured)
    kept = ctx._replace(keep=on_disk(tmp_path, 0.0))
    assert proxy_features.part(kept, NOTHING) is proxy_features.part(kept, NOTHING) is None
    assert len(calls) == 1


def test_it_outlives_the_trainings_of_a_search(tmp_path):
    kept = on_disk(tmp_path / keep.FULL, 0.0)
    for name in (keep.MEASURED, "winner", f"{keep.BATCHES} 1"):
        kept.save(name, "{}", 1, np.zeros(2))
    keep.remove(tmp_path)
    there = [path.name for path in (tmp_path / keep.FULL).iterdir()]
    assert len(there) == 1 and there[0].startswith("proxies--")


def test_only_the_host_that_searches_measures(ctx, counted, monkeypatch):
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    assert proxy_features.part(ctx, NOTHING) is None and not counted


def test_one_image_says_nothing(ctx, counted, caplog):
    caplog.set_level(logging.INFO)
    same = ctx.dataset._replace(train_images=np.zeros_like(ctx.dataset.train_images))
    assert proxy_features.part(ctx._replace(dataset=same), NOTHING) is None and not counted
    assert "need two different images" in caplog.text


def test_layers_of_the_users_own_have_fewer(ctx, counted, caplog):
    caplog.set_level(logging.INFO)
    choices = {"a": layered.own("tests.layers.own_layers:Named"), "b": layered.conv(3)}
    more = {"c": layered.conv(5), "d": layered.sepconv(3)}
    stage = layered.stage(8, choices | more, depth=3)
    part = proxy_features.part(ctx._replace(space=layered.make([stage], stem=8)), NOTHING)
    assert set(part.names) <= {"snip", "grad_norm", "jacov"}
    assert "with layers of your own, zero-cost proxies are snip, grad_norm, jacov" in caplog.text


def test_a_search_that_goes_on_measures_nothing_again(counted, tmp_path):
    settings = [
        "--config.features.proxies=True",
        "--config.method.name=gp",
        f"--workdir={tmp_path}",
    ]
    settings += ["--config.task.name=images/digits", "--config.space.blocks=1"]
    settings += [
        "--config.space.strides=(2,)",
        "--config.space.width=0.5",
        "--config.space.head=16",
    ]
    settings += ["--config.children.steps=2", "--config.akp.enabled=False"]
    settings += ["--config.winner.reference=False", "--config.winner.steps=2"]
    for budget in (8, 16):
        assert main.main([*settings, f"--config.search.budget={budget}"]) == 0
        assert len(counted) == 1


def test_a_tiny_space_has_none(ctx, counted, caplog):
    caplog.set_level(logging.INFO)
    tiny = ctx._replace(space=categorical.make((3, 5)))
    assert proxy_features.part(tiny, NOTHING) is None and not counted
    assert "need 16 networks, and there are 15" in caplog.text


def backwards(space, outputs, loss, batch, archs):
    return -np.repeat(archs[:, :1], 5, axis=1).astype(np.float64)


def test_a_flag_of_its_own(counted, monkeypatch):
    def names(**changed):
        return registry.build_task(configured(**changed)).features().names

    both = names()
    assert set(NAMES) < set(both) and {"params", "kernel"} < set(both)
    assert set(names(features__costs=False, features__structure=False)) == set(NAMES)
    found = {
        registry.build_task(configured(**changed)).features().identity
        for changed in ({}, {"task__split_seed": 1}, {"features__proxies": False})
    }
    assert len(found) == 3  # what is learnt by some is learnt anew for others
    first = registry.build_task(configured()).features().identity
    monkeypatch.setattr(proxy_features, "measured", backwards)
    assert registry.build_task(configured()).features().identity == first  # on whichever device
    before = len(counted)
    assert not set(NAMES) & set(names(features__proxies=False)) and len(counted) == before


def test_the_keep_of_the_search_is_asked(counted, tmp_path):
    asked = []
    given = Keep(load=lambda name, of, first: (asked.append(name), first)[1])
    registry.build_task(configured(), Knowledge(None, keep=given)).features()
    assert asked == ["proxies"]


def test_networks_of_digits_are_measured(ctx):
    """The whole way once: numbers for all, told of others they were not measured of."""
    archs = proxy_features.drawn(ctx.space)
    loss = functools.partial(proxy_features.loss_of, ctx.objective)
    batch = proxy_features.minibatch(ctx)
    values = proxy_features.measured(ctx.space, ctx.dataset.outputs, loss, batch, archs)
    assert values.shape == (len(archs), 5) and np.isfinite(values).mean() > 0.9
    network = elastic.plain(ctx.space, 1, ctx.dataset.outputs)
    alone = jax.jit(functools.partial(proxies.raw, network, loss))
    for i in (0, 5):  # all by the same weights, and by the loss
        seen = jax.tree.map(np.asarray, alone(batch, jax.random.key(0), archs[i]))
        own = proxies.scores(ctx.space, archs[i], seen, network.init_stats(), values[i, 2])
        np.testing.assert_allclose(own, values[i], rtol=1e-3)
    outputs = jnp.zeros((64, 10))
    expected = float(ctx.objective.loss(outputs, batch.targets, 0.0))
    assert loss(outputs, batch.targets) == expected == pytest.approx(np.log(10))
    known = registry.build_task(configured(features__proxies=False)).features()
    half = len(archs) // 2
    part = proxy_features.predicted(ctx.space, known, archs[:half], values[:half])
    assert {"snip", "synflow"} <= set(part.names)
    found = np.asarray(part.of(jnp.asarray(archs[half:])))
    for i, name in enumerate(part.names):
        assert np.corrcoef(found[:, i], values[half:, NAMES.index(name)])[0, 1] > 0.5, name
