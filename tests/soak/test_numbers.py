"""Searches at the edges of what they can be told, by every method, as commands."""

import functools
import json

import numpy as np
import pytest

from fnas_jax.layers import choose
from fnas_jax.registry import METHODS
from tests.soak import damage, processes, searches

ONE_SHOT = ("pgnas", "spos")
CARELESS = {
    "budget of one": {"search__budget": 1},
    "budget over the space": {"search__budget": 500},
    "batch over the budget": {"search__budget": 3, "search__batch": 8},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("numbers")


@pytest.mark.slow
@pytest.mark.parametrize("method", searches.ON_TABLES)
def test_the_same_seed_finds_the_same(place, method):
    search, found = searches.of(f"{method}-tables", place), []
    for number in range(2):
        folder = place / f"{method}-{number}"
        ended = searches.run(search, folder)
        assert ended.code == 0, ended.said
        found.append(searches.found(folder))
    assert not searches.differs(*found)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_finds_the_same_on_images_and_any_number_of_devices(place, method):
    """A training that is divided over devices may differ by rounding: the winner's is left out.

    So are other numbers of devices where one network for all architectures is trained.
    """
    search, found = searches.of(f"{method}-images", place), {}
    divided = {} if method in ONE_SHOT else {"two": 2, "four": 4}
    for name, devices in {"first": 1, "second": 1, **divided}.items():
        folder = place / f"{method}-images-{name}"
        before = functools.partial(processes.on_devices, devices)
        ended = searches.run(search, folder, before, winner__steps=0)
        assert ended.code == 0, ended.said
        found[name] = searches.found(folder)
    assert len(found["first"]["rows"]) >= 4
    for name in ("second", *divided):
        assert not searches.differs(found["first"], found[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("case", CARELESS)
@pytest.mark.parametrize("method", searches.ON_TABLES)
def test_numbers_at_the_edge_give_a_result(place, method, case):
    folder = place / f"{method}-{case.replace(' ', '-')}"
    ended = searches.run(searches.of(f"{method}-tables", place), folder, **CARELESS[case])
    assert ended.code == 0 and "Traceback" not in ended.said, ended.said
    result = json.loads((folder / "result.json").read_text())
    counts = result["counts"]
    assert 1 <= counts["trained"] <= 81 and result["best"]["accuracy"] > 0
    if case == "batch over the budget":
        assert "up to 8 architectures are trained" in ended.said
        assert counts["trained"] <= 8


def ends_well(ended, folder):
    """The result of a search that has one, or None of one that was refused in a sentence."""
    assert "Traceback" not in ended.said, ended.said
    if ended.code == 0:
        return json.loads((folder / "result.json").read_text())
    assert ended.code in (1, 2) and damage.told(ended), ended.said
    return None


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("method", searches.ON_TABLES)
def test_tables_of_few_rows_end_in_a_result_or_a_sentence(place, method, rows):
    table = place / f"{rows}.csv"
    table.write_text("decision_0,decision_1,acc\n0,0,50\n1,0,60\n0,1,70\n"[: 26 + 7 * rows])
    folder = place / f"{method}-{rows}-rows"
    search = searches.of(f"{method}-tables", place)
    ended = searches.run(search, folder, task__name=f"tabular/{table}")
    result = ends_well(ended, folder)
    if result is not None:
        assert 1 <= result["counts"]["trained"] <= rows
        assert result["best"]["accuracy"] == pytest.approx((0.5, 0.6, 0.7)[rows - 1])


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
SETS = {
    "three images": {"images": IMAGES[:3], "labels": np.array([0, 1, 0])},
    "one class": {"images": IMAGES, "labels": np.zeros(60, int)},
    "one value": {"images": IMAGES, "labels": np.ones(60)},
    "one text": {"images": IMAGES, "labels": np.array(["a"] * 60)},
    "equal images": {"images": np.repeat(IMAGES[:1], 60, 0), "labels": np.arange(60) % 2},
    "one colour": {"images": np.zeros_like(IMAGES), "labels": np.arange(60) % 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETS)
def test_sets_that_teach_nothing_end_in_a_result_or_a_sentence(place, kind):
    path = place / f"{kind.replace(' ', '-')}.npz"
    np.savez(path, **SETS[kind])
    folder = path.with_suffix("")
    changes = {"task__name": f"images/{path}"}
    if kind == "one value":
        changes["task__objective"] = "regression"
    ended = searches.run(searches.of("fnas-images", place), folder, **changes)
    result = ends_well(ended, folder)
    if result is not None:
        assert result["counts"]["trained"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["kernels", "kernels_bf16", "masked", "branched", "reference"])
def test_a_result_says_by_which_code_children_trained(place, backend):
    folder = place / f"by-{backend}"
    ended = searches.run(
        searches.of("random-images", place), folder, children__backend=backend, winner__steps=0
    )
    result = ends_well(ended, folder)
    if backend == "kernels_bf16" and not choose.has_short_products():
        assert result is None and "bfloat16" in ended.said
        return
    assert result["versions"]["layers"] == backend
