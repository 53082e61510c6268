"""Reports in a browser: every figure is drawn, nothing is loaded, nothing runs out of the page."""

import re

import numpy as np
import pytest

from fnas_jax import report
from fnas_jax.pages import assemble
from tests.pages import browser
from tests.plots.runs import SPACE, line, run, trial

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def everything(count):
    """A run of which every figure can be drawn, of `count` networks with odd names."""
    rng = np.random.default_rng(0)
    archs = rng.integers(0, SPACE.cardinalities, (count, 2))
    values = 0.1 * archs.sum(1) + rng.normal(0, 0.01, count)
    records = [
        trial(v, arch=tuple(a), text=f"{HOSTILE} {i}", mflops=i + 1.0, params_m=1.0, latency_ms=2.0)
        for i, (v, a) in enumerate(zip(values.tolist(), archs.tolist(), strict=True))
    ]
    records[3] |= {"ok": False, "value": None, "reward": 0.0}
    pairs = {"predicted": [0.1, 0.2], "measured": [0.2, 0.3], "std": [0.1, 0.1]}
    policy = [[0.25] * 4, [0.4, 0.3, 0.3, 0.0]]
    critic = {"calibration": 1.0, "mae": 0.1, "tau": 0.5, "mae_explored": 0.2}
    pool = {"pool/hits": 0.5, "pool/similarity": 0.5, "pool/exact": 0.1, "pool/entries": 3.0}
    lines = [
        line(i + 1, 0, float(i), pairs=pairs, policy=policy, entropy=1.0, **critic, **pool)
        for i in range(count)
    ]
    stages = [
        {"step": i, "stage": "prepare", "pi": [[0.25] * 4, [0.4, 0.3, 0.3]], "nll": 1.0}
        for i in range(3)
    ]
    known = {"children.lr": 0.125, "limits.mflops": 5.0}
    return run(records, lines, stages, name=f"{HOSTILE}/x", **known)


@pytest.mark.slow
def test_a_page_shows_everything_and_loads_nothing(tmp_path):
    page = report.put(assemble.one(everything(60)), tmp_path / "report.html")
    found, said = browser.look(page, 375, tmp_path)
    assert not said, said  # no error, and nothing that was refused
    assert found["figures"] == found["drawn"] >= 14
    assert found["width"] <= 375 and not found["images"]
    text = re.sub(r"<script[^>]*>.*?</script>", "", page.read_text(), flags=re.S)
    links = re.findall(r'(?:src|href)="(.*?)"', text)
    assert links and all(link.startswith(("#", "data:")) for link in links)
    # Sorted by their numbers, the highest first.
    assert [int(number) for number in found["first"]] == sorted(range(60), reverse=True)


@pytest.mark.slow
def test_wide_and_several(tmp_path):
    runs = [everything(30)._replace(label=label) for label in "ab"]
    page = report.put(assemble.several(runs), tmp_path / "report.html")
    found, said = browser.look(page, 1280, tmp_path)
    assert not said, said
    assert found["figures"] == found["drawn"] >= 5 and found["width"] <= 1280


@pytest.mark.slow
def test_a_page_of_ten_thousand_networks_is_below_6_mb():
    page = assemble.one(everything(10_000))
    assert len(page.encode()) < 6_000_000
    assert page.count("points left out") == 4  # of the networks, and of three costs


@pytest.mark.slow
def test_a_page_of_two_searches_of_forty_thousand_is_below_6_mb():
    known = everything(40_000)
    page = assemble.several([known, known._replace(label="b")])
    assert len(page.encode()) < 6_000_000
