import json

import pytest

from fnas_jax.training import autotune


def test_the_largest_number_that_fits_is_chosen_and_that_all_fit_is_remembered(tmp_path):
    asked, room = [], 4

    def fits(group):
        asked.append(group)
        return group <= room

    assert autotune.group(fits, 12, "device", tmp_path) == 3
    assert asked == [12, 6, 3]
    room = 12  # what another program had taken is free again
    assert autotune.group(fits, 12, "device", tmp_path) == 12
    assert asked == [12, 6, 3, 12]
    assert autotune.group(fits, 12, "device", tmp_path) == 12
    assert asked == [12, 6, 3, 12]
    autotune.group(fits, 1, "another device", tmp_path)
    assert json.loads((tmp_path / autotune.FILE).read_text()) == {"device": 12, "another device": 1}


def test_what_earlier_versions_found_the_fastest_is_not_taken_for_what_fits(tmp_path):
    (tmp_path / "tuning.json").write_text('{"device": 1}')
    assert autotune.group(lambda group: True, 8, "device", tmp_path) == 8


def test_one_child_is_trained_where_nothing_more_fits(tmp_path):
    assert autotune.group(lambda group: False, 64, "device", tmp_path) == 1


@pytest.mark.parametrize("content", ["", "[1]", '{"device": "many"}', '{"device": 0}'])
def test_a_damaged_file_counts_as_nothing(tmp_path, content):
    (tmp_path / autotune.FILE).write_text(content)
    assert autotune.group(lambda group: True, 2, "device", tmp_path) == 2


def test_without_a_folder_nothing_is_kept():
    assert autotune.group(lambda group: group < 4, 4, "device", "") == 2
