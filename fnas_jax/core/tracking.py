"""Weights & Biases and MLflow: what is logged of a search goes there, too, and its network.

A search is one run there, whatever it was interrupted by: it is known by the id in run.json. What
is sent waits in a queue, which a thread empties, so that a slow or lost connection holds up
nothing. Where it fails it is told once, and sent again later; a search never ends by it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import pathlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from fnas_jax.core.types import UserError

LOG = logging.getLogger(__name__)
RETRY_SECONDS = 60.0  # after which what failed is sent again
LAST_SECONDS = 60.0  # that the end of a search waits for what is not sent yet
MOST = 100_000  # calls that wait; beyond it the oldest are lost
SERVICES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}  # by the names of keys and packages
DATABASES = ("sqlite", "mysql", "mssql", "postgresql")  # schemes that the small package lacks
EXPERIMENT = "fnas_jax"  # of MLflow, where MLFLOW_EXPERIMENT_NAME names none
SEARCH_TAG = "fnas_jax.run"  # by which MLflow finds the run of a search again


class About(NamedTuple):
    """Of which search it is."""

    id: str  # of run.json
    name: str
    folder: pathlib.Path
    settings: Mapping[str, Any]  # all keys, flat


class Backend(Protocol):
    """A run of a service; all may raise anything."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step, by their tags."""

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """The result: figures by name, files and folders."""

    def close(self, done: bool) -> None:
        """The end of this process's part; `done`: of the search."""


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


class Sender:
    """Sends to a service in a thread of its own, in order, until `close`."""

    def __init__(self, title: str, backend: Backend):
        self._title, self._backend = title, backend
        self._calls: deque[Callable[[], object]] = deque(maxlen=MOST)
        self._state = threading.Condition()
        self._told = self._ending = False
        self._thread = threading.Thread(target=self._run, name=title, daemon=True)
        self._thread.start()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `Backend.log`, at some time."""
        self._put(lambda: self._backend.log(step, numbers))

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """As `Backend.keep`, at some time."""
        self._put(lambda: self._backend.keep(figures, paths))

    def close(self, done: bool, seconds: float) -> None:
        """Ends the run there, and waits for so long; tells what is not sent then."""
        self._put(lambda: self._backend.close(done))
        with self._state:
            self._ending = True
            self._state.notify()
        self._thread.join(seconds)
        waiting = len(self._calls)
        if waiting:
            LOG.warning("%s has not got all of the search: %d calls failed", self._title, waiting)

    def _put(self, call: Callable[[], object]) -> None:
        with self._state:
            self._calls.append(call)
            self._state.notify()

    def _run(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._calls or self._ending)
                if not self._calls:
                    return
                call = self._calls[0]
            try:
                call()
            except Exception as error:
                if self._failed(error):
                    return
                continue
            with self._state:
                if self._calls and self._calls[0] is call:
                    self._calls.popleft()

    def _failed(self, error: Exception) -> bool:
        """Tells of the first failure, and waits until it is time to try again; True: it is not.

        At the end of the search everything is tried once more.
        """
        if not self._told:
            LOG.warning(
                "%s takes nothing now (%s): the search goes on, and what it lacks is sent when it"
                " takes it again",
                *(self._title, reason(error)),
            )
            self._told = True
        with self._state:
            if self._ending:
                return True
            self._state.wait_for(lambda: self._ending, RETRY_SECONDS)
            return False


class Tracked(NamedTuple):
    """All services that a search is logged to."""

    senders: tuple[Sender, ...] = ()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step, by their tags."""
        for sender in self.senders:
            sender.log(step, numbers)

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """The result: figures by name, files and folders."""
        for sender in self.senders:
            sender.keep(figures, paths)


NOWHERE = Tracked()


@contextlib.contextmanager
def opened(log: Any, about: About, begins: bool) -> Iterator[Tracked]:
    """The services that the section `log` names, as long as the context lasts.

    One that does not take the search is wrong input where it `begins`: UserError; where it goes
    on, that is told, and it goes on without.
    """
    senders: list[Sender] = []
    done = False
    try:
        for name, start in STARTS.items():
            if not log[name]:
                continue
            try:
                senders.append(Sender(SERVICES[name], start(log[name], about)))
            except Exception as error:
                text = f"log.{name} is {log[name]!r}, and {SERVICES[name]} does not take it"
                if begins:
                    raise UserError(f"{text}: {reason(error)}") from error
                LOG.warning("%s (%s): the search goes on without", text, reason(error))
        yield Tracked(tuple(senders))
        done = True
    finally:
        until = time.monotonic() + (LAST_SECONDS if done else LAST_SECONDS / 6)  # a signal's grace
        for sender in senders:
            sender.close(done, max(until - time.monotonic(), 0.1))


def reason(error: Exception) -> str:
    """The first line of what it says, or its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class Wandb:
    """A run of Weights & Biases, which its own process sends; as WANDB_MODE says, offline, too."""

    def __init__(self, target: str, about: About):
        wandb = importlib.import_module("wandb")
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
        if "://" not in target:  # a folder, which later versions refuse unless they are told
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            target = pathlib.Path(target).expanduser().absolute().as_uri()
        mlflow, self._entities = (importlib.import_module(m) for m in ("mlflow", "mlflow.entities"))
        self._client = mlflow.MlflowClient(tracking_uri=target)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        known = self._client.get_experiment_by_name(name)
        place = known.experiment_id if known else self._client.create_experiment(name)
        condition = f"tags.`{SEARCH_TAG}` = '{about.id}'"
        found = self._client.search_runs([place], condition, max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {SEARCH_TAG: about.id}
            self._id = self._client.create_run(place, tags=tags, run_name=about.name).info.run_id
        before = found[0].data.params if found else {}  # which cannot change there
        params = [
            self._entities.Param(name, str(value))
            for name, value in about.settings.items()
            if name not in before
        ]
        for first in range(0, len(params), 100):  # the most that it takes at once
            self._client.log_batch(self._id, params=params[first : first + 100])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `Backend.log`."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(n, float(x), now, step) for n, x in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """As `Backend.keep`: texts are tags."""
        for name, value in figures.items():
            if isinstance(value, str):
                self._client.set_tag(self._id, name, value)
            else:
                self._client.log_metric(self._id, name, value)
        for path in paths:
            if path.is_dir():
                self._client.log_artifacts(self._id, str(path), path.name)
            else:
                self._client.log_artifact(self._id, str(path))

    def close(self, done: bool) -> None:
        """As `Backend.close`."""
        self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")


STARTS: dict[str, Callable[[str, About], Backend]] = {"wandb": Wandb, "mlflow": Mlflow}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
