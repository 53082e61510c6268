"""What stands in a page: cards, cells, commands and boxes, of runs by hand."""

import pytest

from fnas_jax.core.measure import Measure
from fnas_jax.pages import assemble, lists, network, summary
from tests.plots.runs import line, run, trial

LOSS = Measure("loss", "minimize", "error")


@pytest.mark.parametrize(
    ("measure", "best"), [(Measure(), "50.00%"), (LOSS, "0.5")], ids=["accuracy", "loss"]
)
def test_without_a_history_cards_are_by_the_metrics(measure, best):
    told = {"failed": 2, "best_accuracy": measure.sign * 0.5}
    known = run([], [line(8, 1), line(12, 3, 7.0, **told)], measure=measure)
    known = known._replace(unread="there is no knowledge store")
    cards = {card.name: card for card in summary.cards(known)}
    assert cards["Best so far"].value.startswith(best)
    assert cards["Evaluated"].value.startswith("12 of ")
    assert cards["Evaluated"].more == "3 predicted, 2 failed"
    page = assemble.compared([known, known._replace(label="b")])
    assert '<td class="number" data-key="12">12</td>' in page
    assert '<td class="number" data-key="0.5">0.5</td>' in page


def test_with_a_history_cards_are_by_it():
    known = run([trial(0.25)], [line(8, best_accuracy=0.5)])
    cards = {card.name: card.value for card in summary.cards(known)}
    assert cards["Best so far"] == "25.00%" and cards["Evaluated"].startswith("1 of ")


def test_times_are_sorted_by_their_seconds():
    runs = [run([trial(0.5)], [line(1, 0, t)], name=f"{t}") for t in (90.0, 7200.0)]
    page = assemble.compared(runs)
    assert '<td class="number" data-key="90.0">90 s</td>' in page
    assert '<td class="number" data-key="7200.0">2 h 0 min</td>' in page


def test_the_command_of_a_download_is_one_for_any_folder(monkeypatch):
    monkeypatch.setattr(lists, "CSV", 0)
    found = lists.download(run([trial(0.5)], name="my run"))
    assert "--workdir=&#x27;runs/my run&#x27; --format=csv" in found


def test_the_gate_of_squeeze_excitation_is_told():
    layer = {"name": "a", "op": "mbconv", "squeeze_excitation": 16}
    assert ">SE 16 (hard_sigmoid)<" in network.block(layer | {"gate": "hard_sigmoid"})
    assert ">SE 16<" in network.block(layer)
