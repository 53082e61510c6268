"""The benchmark `proxies`: its figures of made-up networks, and the smallest run of it."""

import json

import numpy as np
import pytest

from experiments.benchmarks import proxies
from fnas_jax.core.types import Features
from fnas_jax.networks.proxies import NAMES
from fnas_jax.spaces import categorical
from fnas_jax.tasks import proxy_features

SPACE = categorical.make((4, 4, 4, 4))
LAST = Features(("x",), lambda archs: 1.0 * archs[:, 3:], "{}")


def look(archs):
    """Proxies of which the third is what the first two decisions say together."""
    found = np.random.default_rng(0).standard_normal((len(archs), 5))
    found[:, 2] = (archs[:, 0] == archs[:, 1]) + 0.01 * archs[:, 2]
    return found


def test_networks_are_not_those_that_proxies_are_predicted_of():
    seen = proxies.networks(SPACE, 40, look)
    both = np.concatenate([seen.archs, seen.others])
    assert len(np.unique(both, axis=0)) == len(both) == 40 + proxy_features.MEASURED
    np.testing.assert_array_equal(seen.proxies[:, 2], look(seen.archs)[:, 2])
    np.testing.assert_array_equal(seen.of_others[:, 2], look(seen.others)[:, 2])


def test_a_rank_correlation_and_what_comes_of_other_networks():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(200)
    y = x + rng.standard_normal(200)
    y[:20] = np.nan
    record = proxies.correlation("t", "x", x, y)
    ranks = [np.argsort(np.argsort(v[20:])) for v in (x, y)]
    assert record["value"] == pytest.approx(np.corrcoef(*ranks)[0, 1]) and record["n"] == 180
    assert record["low"] < record["value"] < record["high"]
    assert record["high"] - record["low"] < 0.25


def test_what_proxies_say_beside_the_rest_is_seen():
    seen = proxies.networks(SPACE, 120, look)
    accuracy = seen.proxies[:, 2].copy()
    accuracy[:3] = np.nan
    records = proxies.compare("t", SPACE, LAST, seen, accuracy)
    found = {(r["method"], r["metric"]): r["value"] for r in records}
    # The regression of proxies on decisions does not say it; what was measured does.
    assert found["proxies_measured", "rank_correlation_of_64"] > 0.95
    assert found["free", "rank_correlation_of_64"] < 0.8
    assert found["proxies_measured", "rank_correlation_of_64_won_from_free"] == 1
    assert found["synflow", "rank_correlation"] == pytest.approx(1)
    assert ("synflow_predicted", "rank_correlation") not in found


@pytest.mark.slow
def test_the_smallest_run_of_it(tmp_path):
    path = tmp_path / "out.json"
    small = ["--task=digits", "--networks=26", "--steps=4", f"--json={path}"]
    assert proxies.main(small) == 0
    found = json.loads(path.read_text())
    assert {*NAMES, "params", "free", "snip_predicted"} <= {r["method"] for r in found}
    assert next(r["n"] for r in found if r["method"] == "all") == 26
    assert "rank_correlation_of_16_minus_free" in {r["metric"] for r in found}
