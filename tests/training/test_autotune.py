import json

import pytest

from fnas_jax.training import autotune


def test_the_largest_number_that_fits_is_chosen_and_remembered(tmp_path):
    asked = []

    def fits(group):
        asked.append(group)
        return group <= 4

    assert autotune.group(fits, 12, "device", tmp_path) == 3
    assert asked == [12, 6, 3]
    assert autotune.group(fits, 12, "device", tmp_path) == 3
    assert asked == [12, 6, 3]
    autotune.group(fits, 1, "another device", tmp_path)
    assert json.loads((tmp_path / autotune.FILE).read_text()) == {"device": 3, "another device": 1}


def test_one_child_is_trained_where_nothing_more_fits(tmp_path):
    assert autotune.group(lambda group: False, 64, "device", tmp_path) == 1


@pytest.mark.parametrize("content", ["", "[1]", '{"device": "many"}', '{"device": 0}'])
def test_a_damaged_file_counts_as_nothing(tmp_path, content):
    (tmp_path / autotune.FILE).write_text(content)
    assert autotune.group(lambda group: True, 2, "device", tmp_path) == 2


def test_without_a_folder_nothing_is_kept():
    assert autotune.group(lambda group: group < 4, 4, "device", "") == 2
