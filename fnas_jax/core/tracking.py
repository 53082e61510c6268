"""Weights & Biases and MLflow: what is logged of a search goes there, too, and its network.

A search is one run there, whatever it was interrupted by: it is known by the id in run.json.
`core.sender` says how it is sent; a search never ends by it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import pathlib
import posixpath
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fnas_jax.core import sender as sending
from fnas_jax.core import stages
from fnas_jax.core.sender import Backend, Sender, reason
from fnas_jax.core.types import UserError

LAST_SECONDS = 60.0  # that the end of a search waits for what is not sent yet
SERVICES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}  # by the names of keys and packages
DATABASES = ("sqlite", "mysql", "mssql", "postgresql")  # schemes that the small package lacks
DATABRICKS = ("databricks", "databricks-uc")  # which MLflow knows without a scheme
# What MLflow has of its own holds up a search for five minutes; what failed is tried again anyway.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
EXPERIMENT = "fnas_jax"  # of MLflow, where MLFLOW_EXPERIMENT_NAME names none
SEARCH_TAG = "fnas_jax.run"  # by which MLflow finds the run of a search again


class About(NamedTuple):
    """Of which search it is."""

    id: str  # of run.json
    name: str
    folder: pathlib.Path
    settings: Mapping[str, Any]  # all keys, flat


def check(log: Any) -> None:
    """Raises UserError where a service that the section `log` names has no package here."""
    for name, title in SERVICES.items():
        if log[name] and importlib.util.find_spec(name) is None:
            raise UserError(
                f"log.{name} is {log[name]!r}, and the package of {title} is not installed:"
                " pip install 'fnas-jax[track]'"
            )
    scheme = log.mlflow.partition("://")[0].partition("+")[0]
    if scheme in DATABASES and importlib.util.find_spec("sqlalchemy") is None:
        raise UserError(
            f"log.mlflow is {log.mlflow!r}: databases need the whole of MLflow (pip install"
            " mlflow); a folder or a server's http://HOST:PORT needs none"
        )


class Tracked(NamedTuple):
    """All services that a search is logged to."""

    senders: tuple[Sender, ...] = ()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step, by their tags."""
        for sender in self.senders:
            sender.log(step, numbers)

    def again(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `log`, of a step of an earlier process, to those that lack it."""
        for sender in self.senders:
            sender.again(step, numbers)

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """The result: figures by name, files and folders."""
        for sender in self.senders:
            sender.keep(figures, paths)


NOWHERE = Tracked()


def lacking(log: Any, folder: pathlib.Path) -> list[str]:
    """Of the services that the section `log` names, those that lack a part of a finished search.

    One to which nothing of it was ever logged lacks nothing.
    """
    found = {name: sending.read(sending.note_of(folder, name)) for name in STARTS if log[name]}
    return [name for name, sent in found.items() if sent is not None and not sent.done]


@contextlib.contextmanager
def opened(
    log: Any, about: About, begins: bool, names: Collection[str] = tuple(SERVICES)
) -> Iterator[Tracked]:
    """The services that the section `log` names, of `names`, as long as the context lasts.

    One that does not take the search is wrong input where it `begins`: UserError; where it goes
    on, nothing waits for it.
    """
    senders: list[Sender] = []
    done = False
    try:
        for name in (name for name in STARTS if log[name] and name in names):
            senders.append(_sender(name, log[name], about, begins))
        yield Tracked(tuple(senders))
        done = True
    finally:
        until = time.monotonic() + (LAST_SECONDS if done else LAST_SECONDS / 6)  # a signal's grace
        for sender in senders:
            sender.close(done, max(until - time.monotonic(), 0.1))


def _sender(name: str, target: str, about: About, begins: bool) -> Sender:
    title, start = SERVICES[name], functools.partial(STARTS[name], target, about)
    begun = None
    if begins:
        try:
            with stages.at(f"reaching {title}"):
                begun = start()
        except Exception as error:
            text = f"log.{name} is {target!r}, and {title} does not take it: {reason(error)}"
            raise UserError(text) from error
    return Sender(title, lambda: begun or start(), sending.note_of(about.folder, name))


class Wandb:
    """A run of Weights & Biases, which its own process sends; as WANDB_MODE says, offline, too."""

    def __init__(self, target: str, about: About):
        wandb = importlib.import_module("wandb")
        self.place = target
        entity, _, project = target.rpartition("/")
        self._artifact = wandb.Artifact
        self._run = wandb.init(
            entity=entity or None,
            project=project,
            name=about.name,
            id=about.id,
            resume="allow",  # a run of this id goes on
            dir=str(about.folder),
            config={name: _plain(value) for name, value in about.settings.items()},
            allow_val_change=True,  # a search may go on with a higher budget
            settings=wandb.Settings(console="off"),  # the terminal is ours
        )
        self._name = f"best-{about.id}"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `Backend.log`. Steps that it has from before an interruption are the same again."""
        self._run.log(dict(numbers), step=step)

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """As `Backend.keep`, in one artefact of type model."""
        self._run.summary.update(dict(figures))
        artifact = self._artifact(self._name, type="model")
        for path in paths:
            if path.is_dir():
                artifact.add_dir(str(path), name=path.name)
            else:
                artifact.add_file(str(path), name=path.name)
        self._run.log_artifact(artifact)

    def close(self, done: bool) -> None:
        """As `Backend.close`."""
        self._run.finish(exit_code=0 if done else 1)


class Mlflow:
    """A run of MLflow, in the experiment MLFLOW_EXPERIMENT_NAME or EXPERIMENT."""

    def __init__(self, target: str, about: About):
        target = location(target)
        if target.startswith("file:"):  # which later versions refuse unless they are told
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        mlflow, self._entities = (importlib.import_module(m) for m in ("mlflow", "mlflow.entities"))
        self._client = mlflow.MlflowClient(tracking_uri=target)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        known = self._client.get_experiment_by_name(name)
        place = known.experiment_id if known else self._client.create_experiment(name)
        condition = f"tags.`{SEARCH_TAG}` = '{about.id}'"
        found = self._client.search_runs([place], condition, max_results=1)
        if found:
            self.place = found[0].info.run_id
            self._client.update_run(self.place, status="RUNNING")
        else:
            tags = {SEARCH_TAG: about.id}
            self.place = self._client.create_run(place, tags=tags, run_name=about.name).info.run_id
        before = found[0].data.params if found else {}  # which cannot change there
        params = [
            self._entities.Param(name, str(value))
            for name, value in about.settings.items()
            if name not in before
        ]
        for first in range(0, len(params), 100):  # the most that it takes at once
            self._client.log_batch(self.place, params=params[first : first + 100])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `Backend.log`."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(safe(n), float(x), now, step) for n, x in numbers.items()]
        self._client.log_batch(self.place, metrics=metrics)

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """As `Backend.keep`: texts are tags."""
        for path in paths:
            if path.is_dir():
                self._client.log_artifacts(self.place, str(path), path.name)
            else:
                self._client.log_artifact(self.place, str(path))
        for name, value in figures.items():
            if isinstance(value, str):
                self._client.set_tag(self.place, safe(name), value)
            else:
                self._client.log_metric(self.place, safe(name), value)

    def close(self, done: bool) -> None:
        """As `Backend.close`."""
        self._client.set_terminated(self.place, "FINISHED" if done else "KILLED")


def location(target: str) -> str:
    """What MLflow calls a target: a folder's URI where it is neither a URI nor Databricks."""
    if re.match(r"[a-zA-Z][\w+.-]+:", target) or target in DATABRICKS:
        return target
    return pathlib.Path(target).expanduser().absolute().as_uri()


def safe(name: str) -> str:
    """A name as MLflow takes it: other signs are `_`, and it is no path to elsewhere."""
    return posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("./")[:250]


STARTS: dict[str, Callable[[str, About], Backend]] = {"wandb": Wandb, "mlflow": Mlflow}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
