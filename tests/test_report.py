"""The report of runs that are finished, that are not, that are several, and that are none."""

import contextlib
import json
import re
import shlex

import pytest

import fnas_jax
from fnas_jax import report
from fnas_jax.core import cli, config_json, identity, workdir
from fnas_jax.core.config import default, flatten
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history
from fnas_jax.main import USAGE
from fnas_jax.pages import setup
from fnas_jax.plots import data
from fnas_jax.spaces import mnas


@pytest.fixture
def folder(tmp_path):
    config = default()
    config.method.name = "evolution"
    write_json(tmp_path / "config.json", config.to_dict())
    lines = [
        {"step": i, "iteration": i, "trained": 4 * i, "best_accuracy": 0.5 + i / 10, "accuracy": a}
        for i, a in enumerate((0.4, None, 0.6))
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 3, "itera')  # torn by a kill
    return tmp_path


def result():
    figures = {"accuracy": 0.7, "mflops": 1.25, "params_m": 0.1, "latency_ms": None}
    best = {"arch": [0], "description": {"text": "a<b>"}, "reward": 0.7, **figures}
    return {
        "best": best,
        "winner": figures | {"reference": figures | {"accuracy": 0.65}},
        "counts": {"trained": 8, "failed": 0},
        "seconds": {"total": 12.0},
        "seed": 3,
        "resumed": 0,
    }


def written(folder):
    """The page, without its scripts and figures."""
    return re.sub(r"<script.*?</script>", "", report.write(str(folder)).read_text(), flags=re.S)


def test_a_finished_run_has_winner_counts_and_curve(folder):
    write_json(folder / "result.json", result())
    page = written(folder)
    for text in ("Reference network", "65.00%", "1.25", "8 of", "a&lt;b&gt;", "The best so far"):
        assert text in page
    assert "<b>" not in page
    assert "Posterior" not in page  # the method has none


def test_both_readings_of_the_finalists_stand_in_the_report(folder):
    found = result()
    entries = [
        {"arch": [1], "text": "b", "first_accuracy": 0.93, "first_reward": 0.92},
        {"arch": [0], "text": "a<b>", "first_accuracy": 0.91, "first_reward": 0.90},
    ]
    second = ({"accuracy": None, "reward": None}, {"accuracy": 0.7, "reward": 0.69})
    listed = [entry | more for entry, more in zip(entries, second, strict=True)]
    found["best"] |= {"first_accuracy": 0.91, "first_reward": 0.90}
    write_json(folder / "result.json", found | {"finalists": listed})
    page = re.sub(r"<t([dh])[^>]*>", r"<t\1>", written(folder)).replace("\n", "")
    assert "Finalists, trained again on equal terms" in page
    row = "<td>2</td><td>91.00%</td><td>70.00%</td><td>0.9</td><td>0.69</td><td>winner</td>"
    assert row in page and page.count("<td>winner</td>") == 1
    assert "<td>1</td><td>93.00%</td><td>unknown</td><td>0.92</td><td></td><td></td>" in page
    assert "<td>in the search</td><td>91.00%</td>" in page
    assert "<td>as a finalist</td><td>70.00%</td>" in page


@pytest.mark.parametrize(
    ("change", "card"),
    [
        ({}, ("kept", "mflops 1.5")),
        ({"mflops": 1.75}, ("missed", "it has 1.75 million multiply-adds, and limits.mflops is")),
    ],
)
def test_limits_are_said_to_be_kept_or_missed(folder, change, card):
    config = config_json.read_config(folder)
    config.limits.mflops = 1.5
    write_json(folder / "config.json", config.to_dict())
    found = result()
    found["winner"] |= change
    target = {"cost": "latency_ms", "target": 2.0, "value": 3.0, "met": False}
    write_json(folder / "result.json", found | {"target": target})
    page = written(folder).replace("\n", "")
    assert f'<div class="name">Limits</div><div class="value">{card[0]}</div>' in page
    assert card[1] in page and "2 ms; it has 3" in page


CONV = {"name": "stem", "op": "conv", "kernel": 3, "stride": 2, "in": 1, "out": 8}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "<b>conv x 2</b>"),
        ({"arch": [1], "canonical": [0]}, "<b>conv x 2</b>"),  # in another form
        ({"layers": [{"name": "stem"}]}, "is damaged: it has no"),
        ({"arch": "x"}, "is damaged: its"),
        ({"arch": [1]}, "another network, of a later training"),
    ],
)
def test_what_is_kept_is_shown_where_it_is_the_winner(folder, change, told):
    record = {
        "arch": [0],
        "layers": [CONV, CONV | {"name": "head"}],
        "data": {"name": "images/x", "train": 70, "test": 30},
        "accuracy": {"test_images": 30},
    }
    (folder / "best").mkdir()
    write_json(folder / "best" / "architecture.json", record | change)
    interval = {"metric": "accuracy", "low": 0.5, "high": 0.8, "method": "wilson"}
    found = result()
    found["winner"]["kept"] = {"folder": "best", "metrics": {"accuracy": 0.7}, "interval": interval}
    write_json(folder / "result.json", found)
    page = written(folder).replace("\n", "")
    assert told in page and "95%: 50.00% to 80.00%" in page
    for text in ("(30 test images)", "<dd>70</dd>", "1 → 8", "stem to head"):
        assert (text in page) == ("conv x 2" in told)


def test_the_store_is_told_by_task_protocol_and_space(folder):
    """Rows of two spaces of one name, of two protocols, and of an earlier version."""
    with contextlib.closing(history.open_(folder / "knowledge")) as connection:
        for number, (space, protocol) in enumerate(
            [(mnas.make(2), {"steps": 150, "lr": 0.1}), (mnas.make(3), {"steps": 300, "lr": 0.1})]
        ):
            text = identity.text({"children": protocol})
            run = history.Run(str(number), "mnas", "images/<x>", 1, 0, {}, space.identity, text)
            rows = [history.Row(0, [0] * len(space.names), True, True, *[0.5] * 6)]
            history.record(connection, run, 0, rows)
        history.record(connection, history.Run("2", "mnas", "images/<x>", 1, 0, {}), 0, rows)
    page = written(folder)
    assert "images/&lt;x&gt;" in page and "children.steps=150" in page
    assert "children.lr=" not in page  # all have the same
    assert "not written down" in page and f"mnas {mnas.make(3).key}" in page


def test_a_store_that_cannot_be_read_is_told(folder, caplog):
    (folder / "knowledge").mkdir()
    (folder / "knowledge" / "history.sqlite").write_text("not a database " * 1000)
    assert "It cannot be read" in written(folder)
    assert "history.sqlite" in caplog.text


def test_a_history_that_is_gone_is_told(folder, caplog):
    assert "there is no knowledge store in" in written(folder)
    assert "there is no knowledge store in" in caplog.text
    with pytest.raises(UserError, match="there is no knowledge store in"):
        data.read(folder)
    (folder / "metrics.jsonl").write_text('{"step": 0, "iteration": 0, "trained": 0}\n')
    assert data.read(folder).unread == ""  # nothing was measured yet
    write_json(folder / "result.json", result())
    assert "there is no knowledge store in" in data.read(folder, strict=False).unread


def test_one_whose_history_is_gone_is_compared_by_its_metrics(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for name in ("config.json", "metrics.jsonl"):
        (other / name).write_text((folder / name).read_text())
    out = other / "both.html"
    assert report.command([str(folder), str(other), f"--out={out}"]) == 0
    page = re.sub(r"<script.*?</script>", "", out.read_text(), flags=re.S)
    assert page.count('data-key="8">8<') == 2 and page.count("has no history.sqlite.</p>") == 2


def test_a_page_of_an_earlier_version_is_replaced(folder):
    head = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>a</title><style>'
    (folder / "report.html").write_text(head)
    assert "not finished" in written(folder)


def test_a_report_makes_no_store(folder):
    assert "Knowledge store" not in written(folder)
    assert not (folder / "knowledge").exists()


def test_a_run_without_result_says_so(folder, capsys):
    assert report.command([f"--workdir={folder}"]) == 0
    assert capsys.readouterr().out == f"written to {folder / 'report.html'}\n"
    page = (folder / "report.html").read_text()
    assert "not finished" in page and ">interrupted<" in page
    with workdir.opened(folder, config_json.read_config(folder)):
        assert ">running<" in written(folder)
    assert '"name":"best so far"' in page


def test_a_search_that_found_nothing_has_a_report(folder):
    write_json(folder / "result.json", result() | {"best": None, "winner": None})
    assert "No architecture gave a result" in written(folder)


def test_wrong_input_is_told(folder, tmp_path_factory, capsys):
    empty = tmp_path_factory.mktemp("empty")
    mine = empty / "mine.html"
    mine.write_text("<html>my own")
    alike = empty / "alike.html"
    alike.write_text('<!DOCTYPE html>\n<html lang="en"><head><title>My own</title><style></style>')
    for arguments, told in (
        ([f"--workdir={empty}"], "no config.json"),
        ([str(empty)], "no config.json"),
        ([str(folder), str(folder)], "is given twice"),
        ([str(folder), f"--out={mine}"], "is no report of fnas_jax: move it, or give --out=FILE"),
        ([str(folder), f"--out={alike}"], "is no report of fnas_jax"),
        ([str(folder), f"--out={empty / 'a' / 'b'}"], "there is no folder"),
        ([], "--workdir is missing"),
    ):
        assert report.command(arguments) == 2
        assert told in capsys.readouterr().err
    assert mine.read_text() == "<html>my own"
    assert report.command(["--help"]) == 0


HOSTILE = "</script><script>alert(1)</script><img src>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of a search whose names are HTML, with failed networks."""
    place = tmp_path_factory.mktemp("report")
    space = fnas_jax.categorical({f"depth{HOSTILE}": [1, 2, 3], "wide": ["1", HOSTILE, "3"]})

    def accuracy(decisions):
        depth, wide = decisions.values()
        if wide == "3" and depth == 3:
            raise ValueError("too large")
        return {"accuracy": depth / 4 + 0.01 * len(wide) / 60, "mflops": depth}

    for seed in (0, 1):
        task = fnas_jax.from_function(space, accuracy, name=f"mine{HOSTILE}")
        options = {"log.tensorboard": False, "search.batch": 3, "seed": seed}
        folder = place / f"run{seed}"
        fnas_jax.search(task=task, method="random", budget=9, workdir=folder, **options)
    return [place / "run0", place / "run1"]


def test_names_from_files_are_text(runs):
    path = report.write(str(runs[0]))
    page = path.read_text()
    outside = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S)
    assert "<script" not in outside and "<img" not in outside
    assert "alert(1)" in outside  # it is told, as text
    # Within figures no element can be ended: nothing between < and > is there at all.
    for numbers in re.findall(r'<script type="application/json">(.*?)</script>', page, re.S):
        assert "<" not in numbers and json.loads(numbers)["data"]
    for what in ("All 9 as CSV", "9 of 9", "against multiply-adds", "Where the time went"):
        assert what in outside or what in page


def test_several_runs_are_compared_in_the_folder_of_all(runs, capsys):
    assert report.command(list(map(str, runs))) == 0
    page = (runs[0].parent / "report.html").read_text()
    assert f"written to {runs[0].parent / 'report.html'}" in capsys.readouterr().out
    assert "run0" in page and "run1" in page and "(2 seeds)" in page
    assert report.command([*map(str, runs), f"--out={runs[0].parent / 'x.html'}"]) == 0
    assert (runs[0].parent / "x.html").read_text() == page


def test_a_run_in_memory_is_gone_on_with_in_python(runs):
    page = report.write(str(runs[0])).read_text()
    assert "fnas_jax.resume(" in page and "fnas-jax search" not in page


def test_the_command_of_a_search_gives_its_configuration(folder):
    """As it is read by the command line, whatever it holds."""
    config = default()
    config.space.strides = (1, 2, 1)
    config.children.lr = 0.125
    config.log.tensorboard = False
    config.task.name = "images/it's a folder"
    config.task.decisions = ("a", "b c")
    write_json(folder / "config.json", config.to_dict())
    command = setup.search(data.read(folder, strict=False), "NEW")
    program, name, *arguments = shlex.split(command.replace("\\\n", " "))
    assert (program, name) == ("fnas-jax", "search")
    again, values = cli.parse_config(arguments, cli.define_workdir, USAGE)
    assert values.workdir == "NEW" and flatten(again) == flatten(config_json.read_config(folder))
