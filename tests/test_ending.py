"""The time that a search leaves to what follows."""

import types

import pytest

from fnas_jax import ending
from fnas_jax.core import budget
from fnas_jax.core import config as config_lib


def seconds(held=True, trained=10, prepared=6, saved=0, **changes):
    flat = config_lib.flatten(config_lib.default()) | {"search.winner_share": 0.5} | changes
    hooks = types.SimpleNamespace(finals=len if held else None)
    counts = {"trained": trained, "prepared": prepared}
    state = types.SimpleNamespace(counts=counts, seconds={"children": 32.0}, evaluator=saved)
    stats = {} if not saved else {"steps_saved": saved}
    evaluator = types.SimpleNamespace(hooks=hooks, stats=lambda state: stats)
    return ending.finals_seconds(config_lib.nest(flat), evaluator, state)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 8 * 2.0),
        ({"trained": 2}, 2 * 4.0),
        ({"winner.finalists": 20}, 10 * 2.0),
        ({"winner.finalists": 1}, 0.0),
        ({"held": False}, 0.0),
        ({"search.winner_share": 0.0}, 0.0),
        ({"trained": 0, "prepared": 0}, 0.0),
        # Of 16 children of 150 steps, half were not made; finalists make all.
        ({"saved": 1200}, 8 * 4.0),
    ],
)
def test_finals_take_what_as_many_children_have_taken(given, expected):
    assert seconds(**given) == expected


def images(limit=0, iteration=3, saved=0, trained=10, prepared=6, held=True, **changes):
    """(images that are counted, whether they end the search)."""
    flat = config_lib.flatten(config_lib.default()) | {"search.images": limit} | changes
    hooks = types.SimpleNamespace(finals=len if held else None)
    counts = {"trained": trained, "prepared": prepared}
    state = types.SimpleNamespace(counts=counts, evaluator=saved, iteration=iteration)
    evaluator = types.SimpleNamespace(hooks=hooks, stats=lambda state: {"steps_saved": saved})
    task = types.SimpleNamespace(dataset=types.SimpleNamespace(train_labels=range(500)))
    given = config_lib.nest(flat), task, evaluator, state
    return ending.images(*given), ending.out_of_images(*given)


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({}, (10 + 6 + 8) * 150),
        ({"held": False}, (10 + 6) * 150),
        ({"trained": 2}, (2 + 6 + 2) * 150),
        ({"winner.finalists": 0}, (10 + 6) * 150),
        ({"saved": 400}, (10 + 6 + 8) * 150 - 400),
        ({"children.steps": 7}, (10 + 6 + 8) * 7),
    ],
)
def test_images_are_those_of_all_trainings_with_the_finals(given, steps):
    shown, over = images(**given)
    assert shown == 64 * steps and not over
    assert images(limit=shown, **given)[1] and not images(limit=shown + 1, **given)[1]
    assert not images(limit=1, iteration=0, **given)[1]  # which has no result yet


def test_a_minibatch_has_no_more_images_than_there_are():
    assert images(**{"children.batch_size": 4096})[0] == 500 * (10 + 6 + 8) * 150


def test_images_say_about_how_many_children_there_will_be():
    config = config_lib.default()
    config.search.images, config.search.budget = 20 * 150 * 64 - 1, 64
    assert budget.children(config) == 20 and budget.children(config, others=14) == 6
    config.search.budget = 9
    assert budget.children(config) == 9
    config.children.halving, config.search.budget = 2, 64  # a child may take less
    assert budget.children(config) == 64
