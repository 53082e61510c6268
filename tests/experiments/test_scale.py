"""The table of docs/scale.md: its searches, its arithmetic, its sources."""

import pathlib

import pytest

from experiments.benchmarks import scale
from fnas_jax.core.types import UserError
from fnas_jax.networks.sizes import Kept
from fnas_jax.planning import machines, schedule, speed
from fnas_jax.tasks.memory import Sizes

ROOT = pathlib.Path(__file__).resolve().parents[2]
EPOCH = 1_281_167 - 50_000


def test_mnasnet_trains_8000_children_of_five_epochs_and_fnas_a_twentieth_of_the_steps():
    cluster = machines.parse("8xh100")
    theirs, ours = (scale.configured(name, cluster) for name in ("mnasnet", "fnas"))
    seen = theirs.children.steps * theirs.children.batch_size
    assert theirs.search.budget == 8000 and seen == pytest.approx(5 * EPOCH, rel=1e-3)
    assert not theirs.akp.enabled and ours.akp.enabled and ours.search.budget == 1600
    assert ours.children.steps == pytest.approx(theirs.children.steps / 4, rel=1e-3)
    assert f"children.steps={theirs.children.steps}" in (ROOT / "docs/scale.md").read_text()


def test_the_figures_are_those_of_a_sum_by_hand(monkeypatch):
    monkeypatch.setattr(speed, "size_of", lambda ctx, moved=0.0: schedule.Size(300e6, 400e6))
    monkeypatch.setattr(scale, "sizes_of_children", lambda: Sizes(Kept(1e6, 1e6), 1e8))
    found = {r["metric"]: r["value"] for r in scale.figures("mnasnet", "8xh100", price=2.0)}
    operations = 8000 * (5 * EPOCH + 50_000 / 3) * 300e6 * 6
    assert found["exa_operations"] == pytest.approx(operations / 1e18, rel=1e-3)
    hours = operations / (8 * 0.2 * 989e12) / 3600
    assert found["hours@20%"] == pytest.approx(hours, rel=1e-3)
    assert found["dollars@20%"] == pytest.approx(16 * hours, rel=1e-3)
    (row,) = scale.table(scale.figures("mnasnet", "8xh100", price=2.0))[2:]
    assert row.startswith("| `mnasnet` | 8xh100 | 8,000 |")


def test_a_price_is_a_number_of_a_kind():
    assert scale.prices(["h100=1.5"]) == {"h100": 1.5}
    for text in ("h100", "h100=x", "h100=0", "a100=1"):
        with pytest.raises(UserError, match="it is NAME=DOLLARS"):
            scale.prices([text])


def test_the_table_of_the_page_has_all_rows():
    rows = [x for x in (ROOT / "docs/scale.md").read_text().splitlines() if x.startswith("| `")]
    wanted = [(name, machine) for machine in scale.MACHINES for name in scale.SEARCHES]
    assert [tuple(c.strip(" `") for c in row.split("|")[1:3]) for row in rows] == wanted
