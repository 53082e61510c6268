"""What a search computes, against sums by hand."""

import types

import numpy as np
import pytest

from fnas_jax.core import config as config_lib
from fnas_jax.planning import work
from fnas_jax.planning.schedule import Size
from fnas_jax.training.config import Children


def context(**changes):
    values = {"search.budget": 20, "search.batch": 4, "children.steps": 10, "winner.steps": 100}
    values |= {"children.batch_size": 50, "akp.enabled": False, "winner.reference": False}
    flat = config_lib.flatten(config_lib.default()) | values | changes
    config = config_lib.validate(config_lib.nest(flat))
    parts = {"train": 900, "val": 300, "test": 600}
    dataset = types.SimpleNamespace(**{f"{n}_labels": np.zeros(k) for n, k in parts.items()})
    return types.SimpleNamespace(
        config=config,
        dataset=dataset,
        settings=config_lib.read(Children, config.children),
        space=types.SimpleNamespace(cardinalities=(2, 3)),
    )


SIZE = Size(mean=1e6, high=2e6)


def test_the_work_of_a_search():
    found = work.of(context(), SIZE)
    assert found.children == 20 and found.at_once == 4
    assert found.child == pytest.approx((10 * 50 + 300 / 3) * 1e6)
    assert found.finals == pytest.approx(100 * 50 * 2e6)
    assert found.judged == pytest.approx(600 / 3 * 2e6)
    assert work.total(found) == pytest.approx(20 * 600e6 + 10e9 + 0.4e9)


def test_a_pool_has_fair_rounds_and_finalists_and_a_reference_trains_as_long_as_the_winner():
    found = work.of(context(**{"akp.enabled": True, "akp.rounds": 2}), SIZE)
    assert found.children == 20 + 2 * 6 + 8
    alone = work.of(context(**{"akp.enabled": True, "winner.finalists": 1}), SIZE)
    assert alone.children == 20 + 6
    beside = work.of(context(**{"winner.reference": True}), SIZE)
    assert beside.finals == 2 * work.of(context(), SIZE).finals
    assert work.of(context(**{"winner.steps": 0}), SIZE).judged == 0


def test_children_that_stop_early_make_a_share_of_their_steps():
    """By hand: rungs after 2 and 6 of 18 steps; of each, one in three goes on."""
    steps = {"children.steps": 18, "children.halving": 3}
    made, judged = work.of_children(context(**steps))
    assert made == pytest.approx((2 + 4 / 3 + 12 / 9) / 18)
    assert judged == pytest.approx(1 + 1 + 1 / 3)
    made, judged = work.of_children(context(**steps, **{"children.brackets": 3}))
    first, second = 2 + 4 / 3 + 12 / 9, 6 + 12 / 3
    assert made == pytest.approx((9 * first + 5 * second + 3 * 18) / 17 / 18)
    assert judged == pytest.approx(1 + (9 * 4 / 3 + 5) / 17)


def test_devices_beyond_a_batch_of_children_do_nothing_for_them():
    found = work.Work(children=20, at_once=4, child=10.0, finals=80.0, judged=3.0, batch=192)
    assert work.seconds(found, 1.0, 1) == 200 + 80 + 3
    assert work.seconds(found, 2.0, 4) == (50 + 20 + 3) / 2
    assert work.seconds(found, 1.0, 12) == pytest.approx(50 + 80 / 12 + 3)
    # Three devices take a batch of four in two turns.
    assert work.seconds(found, 1.0, 3) == pytest.approx(100 + 80 / 3 + 3)


def test_the_winner_has_the_devices_that_its_minibatches_suffice_for():
    found = work.Work(children=20, at_once=4, child=10.0, finals=80.0, judged=3.0, batch=64)
    assert work.seconds(found, 1.0, 16) == 50 + 80 / 4 + 3  # parts of 16 images
    assert work.seconds(found._replace(batch=50), 1.0, 4) == 50 + 80 / 2 + 3  # 4 do not divide it
