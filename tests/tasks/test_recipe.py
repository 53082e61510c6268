"""The recipe of the final training, from the configuration to what is trained and written."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.spaces import mnas
from fnas_jax.tasks import data, entrants, images, policy, winner
from fnas_jax.tasks import recipe as recipes
from fnas_jax.tasks.entrants import Entrant
from fnas_jax.training import parallel
from fnas_jax.training.child import Outcome
from fnas_jax.training.config import Recipe

SPACE = mnas.make(blocks=1, strides=(1,), width=0.5, stem=16, stem_stride=1, head=16)
ARCH = jnp.zeros(len(SPACE.cardinalities), jnp.int32)
CHOSEN = {"mixup": 0.2, "cutmix": 0.5, "ema": 0.9, "smoothing": 0.1, "lr": 0.03}


def context(**keys):
    config = default()
    for name, value in keys.items():
        config.winner[name] = value
    return images.train_context(config, SPACE, data.load("digits"))


@pytest.fixture
def trained(monkeypatch):
    """The contexts in which networks are trained, none of which is."""
    seen = []

    def make(ctx, mesh):
        seen.append(ctx)
        return parallel.Context(ctx, mesh), parallel.Compiled(lambda *given: None, *[None] * 4)

    monkeypatch.setattr(entrants.parallel, "make", make)
    monkeypatch.setattr(entrants, "trained", lambda *args: None)
    failed = Outcome(jnp.ones(()), jnp.ones(()), jnp.bool_(False))
    monkeypatch.setattr(
        entrants.parallel, "judged", lambda *args: parallel.Trained(failed, None, None)
    )
    return seen


def test_winner_and_reference_are_trained_by_it_and_it_is_written_down(trained):
    ctx = context(**CHOSEN)._replace(latency_ms=lambda arch: 1.0)
    facts = winner.final(ctx, ARCH, jax.random.key(0)).facts
    assert len(trained) == 2 and "reference" in facts
    for own in trained:
        assert own.recipe == Recipe(**CHOSEN)
        assert own.settings == dataclasses.replace(ctx.settings, label_smoothing=0.1, lr=0.03)
    assert facts["recipe"] == dataclasses.asdict(Recipe(**CHOSEN))
    record = recipes.described(ctx, "fresh", 3, recipes.of(ctx))
    assert record["recipe"] == facts["recipe"] and record["label_smoothing"] == 0.1
    assert record["lr"] == 0.03


def test_by_default_it_adds_nothing_and_the_smoothing_is_that_of_children(trained):
    ctx = context()
    ctx = ctx._replace(settings=dataclasses.replace(ctx.settings, label_smoothing=0.3))
    winner.train_and_test(ctx, [Entrant("winner", {}, None)], jax.random.key(0))
    expected = Recipe(smoothing=0.3, lr=ctx.settings.lr)
    assert trained[0].recipe == expected and trained[0].settings == ctx.settings
    assert trained[0].pipeline is ctx.pipeline


def test_the_policy_comes_before_flip_crop_and_cutout(monkeypatch, trained):
    ctx = context(policy="randaugment", policy_magnitude=15, policy_layers=1)
    ctx = ctx._replace(
        pipeline=ctx.pipeline._replace(
            augment=lambda key, x, masks=None: ((x + jax.random.uniform(key)) * 2, 2 * masks)
        )
    )
    given = []

    def apply(*args, moving):
        assert moving  # labels are classes
        given.append(args)
        return args[-2] + 100, args[-1] + 1

    monkeypatch.setattr(policy, "apply", apply)
    winner.train_and_test(ctx, [Entrant("winner", {}, None)], jax.random.key(0))
    key = jax.random.key(7)
    found, masks = trained[0].pipeline.augment(key, jnp.zeros(3), jnp.ones(3))
    keys = jax.random.split(key)
    np.testing.assert_allclose(found, (100 + jax.random.uniform(keys[1])) * 2)
    np.testing.assert_array_equal(masks, [4, 4, 4])
    pixels, layers, strength, own, *_ = given[0]
    assert (layers, strength) == (1, 0.5) and (own == keys[0]).all()
    # Digits are numbers from 0 to 16.
    shown = (ctx.pipeline.normalise(ctx.dataset.train_images) - pixels.offset) * pixels.scale
    np.testing.assert_allclose(shown, ctx.dataset.train_images / 16, atol=1e-5)


def test_randaugment_for_children_and_again_for_the_winner_is_refused():
    config = default()
    config.winner.policy = config.task.augment.policy = "randaugment"
    with pytest.raises(UserError, match="one of the two is enough"):
        images.build(config, SPACE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"winner.mixup": 0.2}, r"winner.mixup is 0.2.*cannot be mixed so \(only by: cutmix\)"),
        ({"winner.smoothing": 0.1}, r"winner.smoothing is 0.1.*no labels that could be smoothed"),
        ({"children.label_smoothing": 0.2}, "children.label_smoothing is 0.2"),
    ],
)
def test_what_an_objective_cannot_be_trained_by_is_refused(changes, message):
    name, value = next(iter(changes.items()))
    section, _, field = name.partition(".")
    ctx = context(**({field: value} if section == "winner" else {}))
    if section == "children":
        ctx = ctx._replace(settings=dataclasses.replace(ctx.settings, **{field: value}))
    recipes.check(ctx)  # classes can be trained by all of it
    strict = ctx.objective._replace(mixes=("cutmix",), smooths=False)
    with pytest.raises(UserError, match=message):
        recipes.check(ctx._replace(objective=strict))
