"""Lines of metrics that are not as the loop writes them cost their figures, and nothing else."""

import pytest

from fnas_jax.pages import assemble, summary
from tests.plots.runs import run, trial

NAMES = (
    *("trained", "predicted", "entropy", "policy", "pairs", "calibration", "mae", "mae_explored"),
    *("tau", "coverage_explored", "best_accuracy", "accuracy"),
    *("pool/hits", "pool/similarity", "pool/exact", "pool/entries"),
    *(f"seconds/{part}" for part in ("total", "compile", "children", "method", "disk")),
)
ODD = ("x", True, None, 10**400, [[]], [["x"]], {"predicted": [1]}, 1e300)


@pytest.mark.parametrize("value", ODD, ids=lambda value: str(value)[:12])
def test_an_odd_value_anywhere_is_left_out(value):
    """In all places at once; also of a run whose history cannot be read."""
    odd = {"iteration": 1, "step": 1} | dict.fromkeys(NAMES, value)
    stage = {"step": 0, "stage": "prepare"} | dict.fromkeys(("pi", "nll", "kl", "entropy"), value)
    known = run([trial(0.5), trial(0.6)], [odd], [stage])
    assert summary.shown(known) and assemble.sections(known)
    without = known._replace(trials=run([]).trials, unread="it is damaged")
    assert assemble.sections(without)
