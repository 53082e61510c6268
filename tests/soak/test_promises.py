"""Promises in docs/reliability.md name tests that there are."""

import re

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text()


def missing(text):
    """The files and tests of the last column of all tables, and behind them, that are not there."""
    found, tests = [], ROOT / "tests"
    for row in (line for line in text.splitlines() if line.startswith("| ") and ".py`" in line):
        for file, names in re.findall(r"`([\w/]+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", row):
            code = (tests / file).read_text() if (tests / file).exists() else ""
            found += [] if code else [file]
            found += [n for n in re.findall(r"\w+", names) if f"def test_{n}(" not in code]
    return found


def test_every_promise_names_tests_that_there_are():
    assert TEXT.count(".py`") > 20
    assert not missing(TEXT)


def test_what_is_not_there_is_found():
    row = (
        "| a | `core/test_disk.py`: `a_file_is_replaced_whole_or_not_at_all`, `no_such`; `no.py` |"
    )
    assert missing(row) == ["no_such", "no.py"]
