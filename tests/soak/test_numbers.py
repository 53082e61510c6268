"""Searches at the edges of what they can be told, by every method, as commands."""

import functools
import json

import pytest

from fnas_jax.registry import METHODS
from tests.soak import processes, searches

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
