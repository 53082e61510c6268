"""Plots are well-formed, place what they are given, and leave out what is no number."""

import math
from xml.etree import ElementTree

from fnas_jax.core import svg

NAMESPACE = {"s": "http://www.w3.org/2000/svg"}


def test_lines_rise_where_values_rise():
    plot = svg.lines({"a < b": [(0, 1.0), (1, 2.0), (2, math.nan), (3, 4.0)]}, "x", "y")
    root = ElementTree.fromstring(plot)
    (line,) = root.findall("s:polyline", NAMESPACE)
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    assert len(points) == 3
    assert points == sorted(points)  # to the right
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)  # and up
    assert "a < b" in [t.text for t in root.findall("s:text", NAMESPACE)]


def test_one_point_is_a_dot_and_none_is_nothing():
    root = ElementTree.fromstring(svg.lines({"a": [(0, 5.0)]}, "x", "y"))
    assert len(root.findall("s:circle", NAMESPACE)) == 1
    assert svg.lines({"a": [(0, math.inf)]}, "x", "y") == ""


def test_a_heat_map_is_darker_for_larger_values():
    root = ElementTree.fromstring(svg.heat_map({"one": [0.0, 1.0], "two": [0.2, 0.3, 0.5]}))
    cells = root.findall("s:rect", NAMESPACE)
    assert len(cells) == 5
    red = [int(c.get("fill")[4:].split(",")[0]) for c in cells]
    assert red[0] == 255 > red[2] > red[3] > red[4] > red[1]
