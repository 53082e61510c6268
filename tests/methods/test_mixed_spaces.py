"""Methods that train children search spaces whose decisions are switches of operations."""

import numpy as np
import pytest

import fnas_jax
from fnas_jax import loop, registry, report, trials
from fnas_jax.core import config as config_lib
from fnas_jax.networks.cost import cost

KEYS = {
    "task.name": "images/digits",
    "space.cell_channels": 4,
    "space.cells_per_stage": 1,
    "children.steps": 4,
    "children.batch_size": 32,
    "search.budget": 6,
    "search.batch": 3,
    "uac.warmup": 3,
    "gp.start": 3,
    "tnas.hidden": 8,
    "tnas.fusion": (16, 8),
    "tnas.iterations": 2,
    "akp.rounds": 1,
    "winner.steps": 20,
    "winner.finalists": 2,
    "winner.reference": False,
    "log.tensorboard": False,
    "jax.cache_dir": "",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "space"),
    [
        ("evolution", "mixed_chain"),
        ("gp", "mixed_cell"),
        ("fnas", "mixed_cell"),
        ("tnas", "mixed_chain"),
    ],
)
def test_a_search_evaluates_prices_keeps_and_reports_canonical_networks(method, space, tmp_path):
    keys = KEYS | {"method.name": method, "space.name": space}
    config = config_lib.nest(config_lib.flatten(config_lib.default()) | keys)
    result = loop.run(config, tmp_path)
    measured = [trial for trial in trials.read(tmp_path) if trial["trained"]]
    archs, built = np.array([trial["arch"] for trial in measured]), registry.build_space(config)
    np.testing.assert_array_equal(built.canonical(archs), archs)
    assert len(np.unique(archs, axis=0)) == len(archs) == result["counts"]["trained"] >= 6
    params, macs = cost(built, (8, 8, 1), 10)(archs)
    np.testing.assert_allclose([trial["mflops"] for trial in measured], macs / 1e6, rtol=1e-6)
    np.testing.assert_allclose([trial["params_m"] for trial in measured], params / 1e6, rtol=1e-6)
    best = result["best"]
    assert best["arch"] in archs.tolist() and result["winner"]["accuracy"] is not None
    kept = fnas_jax.load(tmp_path).architecture
    assert (kept["arch"], kept["description"]["text"]) == (
        best["arch"],
        best["description"]["text"],
    )
    page = report.write(str(tmp_path)).read_text()
    assert "mixed cell" in page and "stage0_cell0" in page
