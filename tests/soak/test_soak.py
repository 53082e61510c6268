"""The cheapest of the faults that `make soak` brings about, and how their outcomes are told."""

import argparse
import json
import shutil

import pytest

from tests.soak import __main__ as soak
from tests.soak import damage, disk, kill, searches, signals, together
from tests.soak.processes import Ended


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a search that nobody disturbs, and one that was killed in the loop."""
    place = tmp_path_factory.mktemp("soak")
    search = damage.long_search(place)
    assert searches.run(search, place / "whole").code == 0
    damage.stop(search, place / "stopped")
    return place


def test_a_killed_search_comes_to_what_an_undisturbed_one_does(place):
    search, folder = damage.long_search(place), place / "killed"
    assert kill.where(place / "stopped") == "in the loop"
    shutil.copytree(place / "stopped", folder)
    assert kill.compared(searches.run(search, folder), folder, place / "whole") == kill.EQUAL


def test_damage_is_mended_or_told(place):
    """Of a file that is read by Python, and of one that SQLite reads."""
    places = [damage.PLACES[0], damage.PLACES[7]]
    found = list(damage.cases(place, places, [damage.truncated]))
    assert len(found) == 2
    assert not soak.wrong(found), found


def test_searches_share_a_store(place):
    found = list(together.cases(place, ["random", "evolution"], commands=False))
    assert found == [("2 searches on one store", together.WHOLE)]


def test_another_result_is_no_good_outcome(place):
    folder, good = place / "other", Ended(0, "")
    shutil.copytree(place / "whole", folder)
    assert kill.compared(good, folder, place / "whole") == kill.EQUAL
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"iterations": 1}))
    warned = Ended(0, "warning: something is damaged")
    for ended in (good, warned):
        assert damage.gone_on(ended, folder, place / "whole") == "WRONG: other result"
    (folder / "metrics.jsonl").write_text("")
    assert kill.compared(good, folder, place / "whole") == "WRONG: other result, metrics"
    (folder / "result.json").write_text(json.dumps(result))
    assert damage.gone_on(good, folder, place / "whole") == kill.OTHER_METRICS
    assert damage.gone_on(warned, folder, place / "whole") == damage.TOLD
    failed = Ended(1, "Traceback\nKeyError: 1")
    assert kill.compared(failed, folder, folder) == "WRONG: exit 1: KeyError: 1"
    assert damage.looked_at(failed, "").startswith("WRONG")
    assert damage.looked_at(Ended(0, "no rows"), "two rows").startswith("WRONG")
    assert damage.looked_at(Ended(2, "error: no rows"), "two rows") == damage.TOLD


def test_disks_are_not_left_out_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "may_mount", lambda: False)
    told = list(soak.cases("disk", tmp_path, argparse.Namespace()))
    assert told == [("disk", "not tried: only root may mount")]


@pytest.mark.parametrize("part", [signals, disk], ids=["signals", "disk"])
def test_what_is_not_as_promised_is_wrong(part, tmp_path, monkeypatch):
    found = [("one after 0.2 of 1 s", part.PROMISED), ("one after 0.9 of 1 s", "swallowed")]
    monkeypatch.setattr(part, "cases", lambda **given: found)
    name, options = part.__name__.rpartition(".")[2], argparse.Namespace(seed=0)
    told = list(soak.cases(name, tmp_path, options))
    assert told == [("one", part.PROMISED), ("one", "WRONG: swallowed")]


def test_outcomes_are_counted():
    lines = soak.table([("a", "fine"), ("bb", "WRONG: exit 1"), ("a", "fine")])
    assert [line.split() for line in lines] == [
        ["fault", "times", "outcome"],
        ["a", "2", "fine"],
        ["bb", "1", "WRONG:", "exit", "1"],
    ]
    assert soak.wrong([("a", "fine"), ("b", "WRONG: exit 1")]) == 1
