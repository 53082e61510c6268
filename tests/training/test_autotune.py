import json
import math

import pytest

from fnas_jax.training import autotune


def test_the_fastest_number_is_chosen_and_remembered(tmp_path):
    asked = []

    def measure(group):
        asked.append(group)
        return {1: 4.0, 2: 2.0, 4: 1.0, 6: 3.0}[group]

    assert autotune.group(measure, 6, "device", tmp_path) == 4
    assert asked == [1, 2, 4, 6]
    assert autotune.group(measure, 6, "device", tmp_path) == 4
    assert asked == [1, 2, 4, 6]
    autotune.group(measure, 1, "another device", tmp_path)
    assert json.loads((tmp_path / autotune.FILE).read_text()) == {"device": 4, "another device": 1}


def test_larger_numbers_are_not_tried_once_memory_is_full(tmp_path):
    asked = []

    def measure(group):
        asked.append(group)
        return 1.0 if group == 1 else math.inf

    assert autotune.group(measure, 64, "device", tmp_path) == 1
    assert asked == [1, 2]


@pytest.mark.parametrize("content", ["", "[1]", '{"device": "many"}', '{"device": 0}'])
def test_a_damaged_file_counts_as_nothing(tmp_path, content):
    (tmp_path / autotune.FILE).write_text(content)
    assert autotune.group(lambda group: 1.0 / group, 2, "device", tmp_path) == 2


def test_without_a_folder_nothing_is_kept():
    assert autotune.group(lambda group: float(group), 4, "device", "") == 1


@pytest.mark.parametrize(("most", "tried"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6])])
def test_candidates(most, tried):
    assert autotune.candidates(most) == tried
