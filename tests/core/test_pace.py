"""How long the rest takes, by moments that were written down."""

import math

import pytest

from fnas_jax.core import pace
from fnas_jax.core.pace import Mark


def test_equal_spans_go_on_as_they_were():
    marks = [Mark(10.0 * i, 4.0 * i) for i in range(4)]
    assert pace.seconds_each(marks) == pytest.approx(2.5)
    assert pace.left(marks, 20.0) == pytest.approx(20.0)
    assert pace.left(marks, 12.0) == pace.left(marks, 3.0) == 0.0


def test_nothing_is_known_before_anything_was_gained():
    for marks in ([Mark(0.0, 5.0)], [Mark(0.0, 5.0), Mark(9.0, 5.0)]):
        assert pace.left(marks, 10.0) == math.inf


def test_compilation_and_a_first_span_that_took_longer_do_not_count():
    assert pace.left([Mark(0.0, 0.0), Mark(50.0, 4.0, 42.0)], 8.0) == 8.0
    warm = [Mark(0.0, 0.0), Mark(50.0, 4.0), Mark(58.0, 8.0)]
    assert pace.left(warm, 16.0) == pytest.approx(16.0)


def test_later_spans_count_more():
    """As where a search slows down: 1 second each at first, 9 later on."""
    marks = [Mark(float(i), float(i)) for i in range(20)]
    marks += [Mark(19.0 + 9 * i, 19.0 + i) for i in range(1, 20)]
    assert 7.0 < pace.seconds_each(marks) < 9.0


def test_time_without_a_gain_is_that_of_the_next_one():
    """Nothing new from 20 to 30, nor from there to 80, where the next is overdue."""
    marks = [Mark(0.0, 0.0), Mark(10.0, 1.0), Mark(20.0, 2.0), Mark(30.0, 2.0)]
    assert pace.left(marks, 4.0) == pytest.approx(20.0)
    assert pace.left([*marks, Mark(40.0, 3.0)], 4.0) == pytest.approx(15.0, rel=0.1)
    assert pace.left([*marks, Mark(80.0, 2.0)], 4.0) == 120.0


# (seconds, trained, seconds of compilation) at the end of each iteration, on two cores.
# FNAS on the digits: the first iteration trains 8 side by side, each later one a single child.
FNAS = [
    *((21.9, 0, 7.9), (33.5, 8, 9.5), (35.7, 9, 9.5), (37.0, 10, 9.5), (38.8, 11, 9.5)),
    *((40.5, 12, 9.5), (42.0, 13, 9.5), (43.4, 14, 9.5), (45.5, 15, 9.5), (48.3, 16, 9.5)),
]
# Evolution there: four new children in each iteration, the first of which has compiled for minutes.
EVOLUTION = [
    *((157.7, 4, 121.9), (168.0, 8, 121.9), (174.6, 12, 121.9), (178.7, 16, 121.9)),
    *((183.2, 20, 121.9), (191.4, 24, 121.9)),
]


@pytest.mark.parametrize("recorded", [FNAS, EVOLUTION], ids=["fnas", "evolution"])
def test_the_rest_of_recorded_searches_is_known_within_a_factor_of_three(recorded):
    """From the first iteration on, which compiles."""
    marks = [Mark(*each) for each in recorded]
    end, total = marks[-1].seconds, marks[-1].done
    for known in range(2, len(marks)):
        said = pace.left(marks[:known], total)
        real = end - marks[known - 1].seconds
        assert real / 3 < said < 3 * real, (known, said, real)


def test_marks_of_metrics():
    whole = {"trained": 8, "seconds/total": 9.5, "seconds/compile": 1}
    lines = [{"stage": "prepare"}, whole, whole | {"trained": None}, whole | {"trained": True}]
    assert pace.of_metrics(lines) == [Mark(9.5, 8, 1)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (65, "1:05"), (3665, "1:01:05"), (172799, "47:59:59"), (183600, "2 d 3 h")],
)
def test_durations_as_text(seconds, text):
    assert pace.text(seconds) == text
