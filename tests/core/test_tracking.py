"""What services get of a search, and that a search gets nothing of their troubles."""

import importlib.util
import json
import os
import pathlib
import struct
import subprocess
import sys

import pytest

from fnas_jax import loop
from fnas_jax.core import sender, stages, tracking
from fnas_jax.core.tracking import About
from fnas_jax.core.types import UserError
from tests import test_loop

ABOUT = About("0" * 32, "a", pathlib.Path("w"), {"search.budget": 6})


class Service:
    """A backend that keeps what it gets; of its first `failures` calls each raises."""

    place = "here"

    def __init__(self, failures=0):
        self.calls, self.failures = [], failures

    def _call(self, *call):
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no route to host\nand more")
        self.calls.append(call)

    def log(self, step, numbers):
        self._call("log", step, dict(numbers))

    def keep(self, figures, paths):
        self._call("keep", dict(figures), [path.name for path in paths])

    def close(self, done):
        self._call("close", done)


@pytest.fixture
def service(monkeypatch):
    found = Service()
    monkeypatch.setattr(tracking, "check", lambda log: None)
    monkeypatch.setitem(tracking.STARTS, "wandb", lambda target, about: found)
    return found


def config(**changes):
    return test_loop.config_with(log__wandb="team/project", **changes)


def test_a_search_is_logged_there_with_its_result(service, tmp_path):
    result = loop.run(config(), tmp_path / "mine", test_loop.build)
    kinds = [call[0] for call in service.calls]
    lines = [json.loads(line) for line in (tmp_path / "mine" / "metrics.jsonl").open()]
    assert kinds == ["log"] * len(lines) + ["keep", "close"]
    assert [call[1] for call in service.calls[: len(lines)]] == [line["step"] for line in lines]
    last = service.calls[len(lines) - 1][2]
    assert last["search/trained"] == result["counts"]["trained"]
    assert last["search/best_reward"] == result["best"]["reward"]
    _, figures, names = service.calls[-2]
    assert figures["winner/accuracy"] == result["winner"]["accuracy"]
    assert figures["winner/architecture"] == result["best"]["description"]["text"]
    assert "winner/latency_ms" not in figures  # unknown
    assert names == ["result.json"]  # a table has no network to keep
    assert service.calls[-1] == ("close", True)


def test_it_says_of_which_search_it_is(service, tmp_path, monkeypatch):
    told = []
    monkeypatch.setitem(tracking.STARTS, "wandb", lambda *given: (told.append(given), Service())[1])
    loop.run(config(), tmp_path / "mine", test_loop.build)
    loop.run(config(search__budget=9, log__run_name="b"), tmp_path / "mine", test_loop.build)
    (target, first), (_, second) = told
    run = json.loads((tmp_path / "mine" / "run.json").read_text())
    assert (target, first.name, second.name) == ("team/project", "mine", "b")
    assert first.id == second.id == run["id"]
    assert (first.settings["search.budget"], second.settings["search.budget"]) == (6, 9)


def test_one_that_fails_is_told_once_and_gets_it_later(monkeypatch, tmp_path, service, caplog):
    monkeypatch.setattr(sender, "RETRY_SECONDS", 0.01)
    service.failures = 3
    loop.run(config(), tmp_path, test_loop.build)
    told = [record.message for record in caplog.records if "takes nothing" in record.message]
    assert told == [
        "Weights & Biases takes nothing now (no route to host): the search goes on, and what it"
        " lacks is sent when it takes it again"
    ]
    steps = [call[1] for call in service.calls if call[0] == "log"]
    assert steps == sorted(set(steps)) and steps[0] == 0  # nothing lost, nothing twice
    assert service.calls[-1] == ("close", True)


def test_one_that_never_takes_anything_does_not_end_a_search(tmp_path, service, caplog):
    service.failures = 10**6
    result = loop.run(config(), tmp_path, test_loop.build)
    assert result["best"] is not None
    first, last = (r.message for r in caplog.records if r.message.startswith("Weights"))
    assert "takes nothing now" in first
    assert last.startswith("Weights & Biases has not got all of the search: ")


def test_one_that_does_not_take_a_search_is_refused_at_its_start_and_told_later(
    tmp_path, service, monkeypatch, caplog
):
    def refuse(target, about):
        raise PermissionError("no key\nsecond line")

    monkeypatch.setitem(tracking.STARTS, "wandb", refuse)
    text = "log.wandb is 'team/project', and Weights & Biases does not take it"
    with pytest.raises(UserError, match=f"^{text}: no key$"):
        loop.run(config(), tmp_path, test_loop.build)
    loop.run(test_loop.config_with(), tmp_path, test_loop.build)
    loop.run(config(search__budget=9), tmp_path, test_loop.build)
    told = [record.message for record in caplog.records if record.message.startswith("Weights")]
    assert told[0] == sender.NOT_BEGUN % ("Weights & Biases", "no key")
    assert told[1].startswith("Weights & Biases has not got all of the search: calls not sent: ")


def test_a_search_that_ends_otherwise_is_not_done(service, tmp_path):
    about = ABOUT._replace(folder=tmp_path)
    with pytest.raises(ZeroDivisionError), tracking.opened(config().log, about, True):
        raise ZeroDivisionError
    assert service.calls == [("close", False)]


def test_a_missing_package_is_told_before_anything_is_read(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in tracking.SERVICES else find(name)
    )
    for name, title in tracking.SERVICES.items():
        wanted = test_loop.config_with(**{f"log__{name}": "x"})
        with pytest.raises(UserError) as error:
            loop.run(wanted, tmp_path / "absent", lambda *given: pytest.fail("was built"))
        assert str(error.value) == (
            f"log.{name} is 'x', and the package of {title} is not installed: pip install"
            " 'fnas-jax[track]'"
        )
    assert not (tmp_path / "absent").exists()


def test_databases_need_more_than_the_small_package(monkeypatch):
    found = {"mlflow": object(), "sqlalchemy": None}
    monkeypatch.setattr(importlib.util, "find_spec", found.get)
    with pytest.raises(UserError, match=r"is 'sqlite:///a.db': databases need the whole"):
        tracking.check(test_loop.config_with(log__mlflow="sqlite:///a.db").log)
    tracking.check(test_loop.config_with(log__mlflow="http://host:5000").log)


def test_one_that_is_slow_to_begin_is_waited_for_in_a_stage_and_later_by_nobody(
    tmp_path, service, monkeypatch
):
    names = []

    def start(target, about):
        names.append([stage.name for stage in stages._now.stages])
        return service

    monkeypatch.setitem(tracking.STARTS, "wandb", start)
    about = ABOUT._replace(folder=tmp_path)
    for begins in (True, False):
        with tracking.opened(config().log, about, begins):
            pass
    assert names[0] == ["reaching Weights & Biases"]
    assert "reaching Weights & Biases" not in names[1]


def test_a_finished_search_sends_what_could_not_be_sent_and_only_that(tmp_path, service, caplog):
    service.failures = 10**6
    first = loop.run(config(), tmp_path, test_loop.build)
    service.failures = 0
    again = loop.run(config(), tmp_path, lambda *given: pytest.fail("was built"))
    assert again == first
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert [call[1] for call in service.calls[: len(steps)]] == steps
    assert [call[0] for call in service.calls[len(steps) :]] == ["keep", "close"]
    assert service.calls[-2][1]["winner/accuracy"] == first["winner"]["accuracy"]
    service.calls.clear()
    loop.run(config(), tmp_path, test_loop.build)
    assert not service.calls


def test_a_search_that_goes_on_sends_what_an_earlier_process_could_not(tmp_path, service):
    loop.run(config(), tmp_path, test_loop.build)
    note = sender.note_of(tmp_path, "wandb")
    note.write_text(json.dumps({"place": "here", "next": 1, "done": False}))
    service.calls.clear()
    loop.run(config(search__budget=9), tmp_path, test_loop.build)
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert [call[1] for call in service.calls if call[0] == "log"] == lines[1:]


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("databricks", "databricks"),
        ("databricks:mine", "databricks:mine"),
        ("file:runs", "file:runs"),
        ("http://host:5000", "http://host:5000"),
        ("/a/runs", "file:///a/runs"),
        ("C:", (pathlib.Path.cwd() / "C:").as_uri()),
    ],
)
def test_a_folder_is_what_has_no_scheme(target, location):
    assert tracking.location(target) == location


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("winner/acc (%)", "winner/acc ___"),
        ("winner/top-1.5: a", "winner/top-1.5: a"),
        ("winner//a/", "winner/a"),
        ("../a", "a"),
    ],
)
def test_names_are_such_as_mlflow_takes(name, taken):
    assert tracking.safe(name) == taken


@pytest.mark.slow  # imports the package
def test_mlflow_has_one_run_of_a_search_that_was_interrupted(tmp_path, monkeypatch, caplog):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place, folder = tmp_path / "store", tmp_path / "mine"
    for more in (6, 9):
        wanted = test_loop.config_with(log__mlflow=str(place), search__budget=more)
        result = loop.run(wanted, folder, test_loop.build)
    client = mlflow.MlflowClient(tracking_uri=place.as_uri())
    experiment = client.get_experiment_by_name("fnas_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert run.data.params["search.budget"] == "6"  # it cannot change there
    assert run.data.params["method.name"] == "fnas"
    assert run.data.metrics["winner/accuracy"] == result["winner"]["accuracy"]
    assert run.data.tags["winner/architecture"] == result["best"]["description"]["text"]
    history = client.get_metric_history(run.info.run_id, "search/trained")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    known = {line["step"]: line["trained"] for line in lines if "trained" in line}
    assert {m.step: m.value for m in history} == known
    (kept,) = client.list_artifacts(run.info.run_id)
    assert kept.path == "result.json"
    best(tmp_path / "best")
    backend = tracking.Mlflow(str(place), ABOUT._replace(id=tracked_id(folder)))
    backend.keep({"winner/mflops": 2.0, "winner/acc (%)": 3.0}, [tmp_path / "best"])
    backend.log(0, {"loss@1": 4.0})
    backend.close(False)
    (again,) = client.search_runs([experiment.experiment_id])
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "KILLED")
    taken = ("winner/mflops", "winner/acc ___", "loss_1")
    assert [again.data.metrics[name] for name in taken] == [2.0, 3.0, 4.0]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "best")] == ["best/weights"]
    assert not caplog.records


def best(folder):
    folder.mkdir()
    (folder / "weights").write_text("1 2 3")


def tracked_id(folder):
    return json.loads((folder / "run.json").read_text())["id"]


OFFLINE = """
import pathlib, sys
from fnas_jax import loop
from fnas_jax.core import sender, stages, tracking
from tests import test_loop
from tests.core import test_tracking
for budget in (6, 9):
    wanted = test_loop.config_with(log__wandb="team/project", search__budget=budget)
    loop.run(wanted, sys.argv[1], test_loop.build)
about = test_tracking.ABOUT._replace(folder=pathlib.Path(sys.argv[1]))
test_tracking.best(about.folder / "best")
backend = tracking.Wandb("project", about)
backend.keep({"winner/mflops": 2.0}, [about.folder / "best"])
backend.close(True)
"""


def records(content):
    """The records of a .wandb file: LevelDB's format of logs behind a header of 7 bytes."""
    whole, place = b"", 7
    while place + 7 <= len(content):
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        left = 32768 - place % 32768
        if left < 7 or kind == 0:  # the rest of a block is empty
            place += left
            continue
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield whole
            whole = b""


def artifact_names(path):
    """(name, files) of the artefacts in a .wandb file."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for content in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        artifact = record.artifact
        if record.WhichOneof("record_type") == "request":
            artifact = record.request.log_artifact.artifact
        if artifact.name:
            found.append((artifact.name, [entry.path for entry in artifact.manifest.contents]))
    return found


@pytest.mark.slow  # starts processes of the package
def test_weights_and_biases_has_one_run_of_a_search_that_was_interrupted(tmp_path):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    folder = tmp_path / "mine"
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", OFFLINE, str(folder)]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = json.loads((folder / "run.json").read_text())
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    names = [artifact_names(path) for path in files if ABOUT.id in path.name]
    assert names == [[(f"best-{ABOUT.id}", ["best/weights"])]]
    files = [path for path in files if ABOUT.id not in path.name]
    assert [path.name for path in files] == [f"run-{run['id']}.wandb"] * 2
    found, steps = [], []
    for path in files:
        for content in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found.append(record.run)
            if kind == "history":
                steps.append(record.history.step.num)
    assert {(r.entity, r.project, r.display_name, r.run_id) for r in found} == {
        ("team", "project", "mine", run["id"])
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert sorted(set(steps)) == [line["step"] for line in lines]
