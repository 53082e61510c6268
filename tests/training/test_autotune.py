"""The fastest way to train children is found, kept, and looked for again where it has to be."""

import json
import math

import pytest

from fnas_jax.training import autotune
from fnas_jax.training.autotune import Way


def device(seconds, room=math.inf):
    """Ways that were asked for, and a device on which they take `seconds` by (backend, group)."""
    asked = []

    def time(way):
        asked.append(way)
        return None if way.group > room else seconds.get(way, 1.0)

    return asked, time


def fastest(time, folder, backends=("branched", "masked"), groups=(12, 1), name="device"):
    ways = [Way(backend, group) for backend in backends for group in groups]
    return autotune.fastest(time, ways, name, folder)


@pytest.mark.parametrize(
    "best", [Way(backend, group) for backend in ("branched", "masked") for group in (12, 1)]
)
def test_backend_and_group_of_the_fewest_seconds_are_chosen_and_remembered(tmp_path, best):
    asked, time = device({best: 0.1})
    assert fastest(time, tmp_path) == best
    assert sorted(asked) == sorted(Way(b, g) for b in ("branched", "masked") for g in (12, 1))
    kept = json.loads((tmp_path / autotune.FILE).read_text())
    assert kept == {"device": best._asdict() | {"steps": None}}
    again, time = device({})
    assert fastest(time, tmp_path) == best and not again
    assert fastest(time, tmp_path, name="another") and again


def test_what_is_not_possible_any_more_is_not_taken_from_memory(tmp_path):
    fastest(device({Way("masked", 12): 0.1})[1], tmp_path)
    assert fastest(device({})[1], tmp_path, backends=("branched",)).backend == "branched"
    assert fastest(device({})[1], tmp_path, groups=(4, 1)).group in (4, 1)


@pytest.mark.parametrize("steps", ["NaN", '"a"', "[]"])
def test_steps_that_are_none_count_as_nothing(tmp_path, steps):
    kept = f'{{"device": {{"backend": "masked", "group": 1, "steps": {steps}}}}}'
    (tmp_path / autotune.FILE).write_text(kept)
    best = Way("branched", 1)
    assert fastest(device({best: 0.1})[1], tmp_path) == best


@pytest.mark.parametrize("group", ["Infinity", "NaN", '"a"', "1e400", "null", "-1"])
def test_what_is_kept_and_no_number_counts_as_nothing(tmp_path, group):
    kept = f'{{"device": {{"backend": "masked", "group": {group}, "steps": null}}}}'
    (tmp_path / autotune.FILE).write_text(kept)
    best = Way("branched", 1)
    assert fastest(device({best: 0.1})[1], tmp_path) == best


def test_a_number_that_does_not_fit_is_halved_and_not_remembered(tmp_path):
    asked, time = device({Way("branched", 3): 0.1}, room=4)
    assert fastest(time, tmp_path, backends=("branched",)) == Way("branched", 3)
    assert [way.group for way in asked] == [12, 6, 3, 1]
    assert not (tmp_path / autotune.FILE).exists()
    # What another program had taken is free again.
    assert fastest(device({Way("branched", 12): 0.1})[1], tmp_path) == Way("branched", 12)


def test_one_child_is_trained_where_nothing_fits(tmp_path):
    assert fastest(device({}, room=0)[1], tmp_path).group == 1


def test_where_there_is_one_way_nothing_is_timed(tmp_path):
    asked, time = device({})
    found = fastest(time, tmp_path, backends=("reference",), groups=(1,))
    assert found == Way("reference", 1) and not asked


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"device": 12}', '{"device": {"backend": "masked", "group": 0}}']
)
def test_a_damaged_file_counts_as_nothing(tmp_path, content):
    (tmp_path / autotune.FILE).write_text(content)
    assert fastest(device({Way("branched", 12): 0.1})[1], tmp_path) == Way("branched", 12)


@pytest.mark.parametrize(
    ("file", "kept"),
    [
        ("children_at_once.json", '{"device": 1}'),
        ("children_ways.json", '{"device": {"backend": "masked", "group": 12}}'),
    ],
)
def test_what_earlier_versions_found_is_not_taken_for_what_is_the_fastest(tmp_path, file, kept):
    (tmp_path / file).write_text(kept)
    assert fastest(device({Way("branched", 12): 0.1})[1], tmp_path) == Way("branched", 12)


def test_without_a_folder_nothing_is_kept():
    assert fastest(device({Way("masked", 1): 0.1})[1], "") == Way("masked", 1)


WAYS = [Way("exact", 1), Way("masked", 4), Way("masked", 1)]
ENOUGH = int(autotune.TRYING)  # steps, of a second each


def test_no_other_way_is_tried_where_one_ends_the_search_sooner(tmp_path):
    def found(steps):
        asked, time = device({Way("masked", 4): 0.5})
        return autotune.fastest(time, WAYS, "device", tmp_path, steps), asked

    assert found(ENOUGH - 1) == (WAYS[0], WAYS[:1])
    assert found(ENOUGH - 2) == (WAYS[0], [])  # is known
    assert found(ENOUGH + 1) == (WAYS[1], WAYS[:2])  # takes half as long
    assert found(2 * ENOUGH - 1) == (WAYS[1], [])
    assert found(2 * ENOUGH + 1) == (WAYS[1], WAYS)
    assert found(math.inf) == (WAYS[1], [])
