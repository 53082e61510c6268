"""What a search has found, as Python objects: read from its folder, so that it outlives them."""

from __future__ import annotations

import functools
import importlib.util
import operator
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from fnas_jax import export, outcome, pareto, plots, registry, report, retrain, simulated, trials
from fnas_jax.core import config as config_lib
from fnas_jax.core import config_json, jsons
from fnas_jax.core.types import UserError
from fnas_jax.parts import Parts
from fnas_jax.ship.model import Model, load
from fnas_jax.summary import summary

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Result:
    """A finished search. Figures are those of result.json; trials are those of the history."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        arrays: Mapping[str, np.ndarray] | None = None,
        own: Parts = registry.NONE,
    ):
        """Reads the search in `folder`. Raises UserError where it is not finished.

        `arrays` and `own`: the image set in memory and the parts that were given as objects, which
        `retrain` and `export` need again; a result of `search` or `resume` has them.
        """
        self._build = functools.partial(registry.build_task, arrays=arrays, own=own)
        self.workdir = pathlib.Path(folder).expanduser()
        self.content: dict[str, Any] = outcome.read(self.workdir)

    def __repr__(self) -> str:
        return summary(self.content, str(self.workdir))

    @property
    def config(self) -> ml_collections.ConfigDict:
        """The configuration of the run."""
        return config_json.read_config(self.workdir)

    @property
    def best(self) -> dict[str, Any] | None:
        """The winner in the search: `arch`, `description`, `accuracy`, `reward`, costs."""
        return self.content["best"]

    @property
    def winner(self) -> dict[str, Any] | None:
        """The winner after the search: trained fully and tested, beside a reference network.

        Later trainings are `retrained`; its accuracy is None where `winner.steps` was 0.
        """
        return self.content["winner"]

    @property
    def counts(self) -> dict[str, int]:
        """How many architectures were proposed, trained, predicted, failed, .."""
        return self.content["counts"]

    @property
    def simulated_seconds(self) -> dict[str, float | None] | None:
        """Seconds that what was evaluated took to train, by the task's table: `total`, `to_best`.

        None where the task has no training times (`task.time`).
        """
        return self.content.get(simulated.NAME)  # earlier versions had none

    @property
    def pareto(self) -> list[dict[str, Any]]:
        """Measured networks that no other beats in accuracy and all costs; the best first."""
        return self.content.get("pareto", [])  # earlier versions had none

    @functools.cached_property
    def trials(self) -> Any:
        """Every proposal in its order: a pandas DataFrame if pandas is installed, else dicts."""
        if importlib.util.find_spec("pandas") is None:
            return self._records
        return importlib.import_module("pandas").DataFrame.from_records(self._records)

    @functools.cached_property
    def _records(self) -> list[dict[str, Any]]:
        return trials.read(self.workdir)

    def plot_history(self, x: str = "evaluations") -> go.Figure:
        """Every network that was tried, and the best so far; `x` as that of `plots.incumbent`.

        `fnas_jax.plots` has more figures.
        """
        return plots.evaluations(self, x)

    def plot_pareto(self, cost: str = "mflops") -> go.Figure:
        """The metric of every measured network against its `cost`, and those that no other beats.

        `cost`: "mflops", "params_m" or "latency_ms". Raises UserError for one that the search does
        not know.
        """
        return plots.front(self, cost)

    @property
    def retrained(self) -> dict[str, Any] | None:
        """What the last retraining gave, as retrain.json holds it; None before the first."""
        path = self.workdir / "retrain.json"
        return jsons.read(path) if path.exists() else None

    @functools.cached_property
    def model(self) -> Model:
        """The trained winner of the search, with `predict` and `evaluate`.

        Raises UserError without one, and where what is kept is another network, as `retrain` leaves
        it: `fnas_jax.load(result.workdir)` is whatever is kept.
        """
        model = load(self.workdir)
        if self.best is not None and model.arch != self.best["arch"]:
            raise UserError(
                f"what is kept in {str(self.workdir)!r} is {model.description}, which retrain or"
                " more of the search left, and not the winner that this result has,"
                f" {self.best['description']['text']}: fnas_jax.load takes it as it is,"
                " Result.retrain() trains the winner again"
            )
        return model

    def pick(
        self,
        max_latency_ms: float | None = None,
        max_mflops: float | None = None,
        max_params_m: float | None = None,
    ) -> dict[str, Any]:
        """The most accurate network of the front that costs no more; its number there is `pick`.

        Million multiply-adds of an image, million parameters; None: no bound. Raises UserError
        where none is within.
        """
        bounds = {"latency_ms": max_latency_ms, "mflops": max_mflops, "params_m": max_params_m}
        return pareto.within(self.pareto, bounds)

    def retrain(
        self,
        steps: int | None = None,
        pick: int | Mapping[str, Any] = 0,
        top: int | None = None,
        **overrides: Any,
    ) -> dict[str, Any]:
        """Trains a network of the search again, and keeps it; what retrain.json holds.

        As `python -m fnas_jax.retrain`, which says more.

        Args:
          steps: of the training (`winner.steps`); None: those of the run.
          pick: 0, `best`, or the number of a network of `pareto`, from 1, or such a network itself,
            or what `pick` gave. It is the network that this result shows there, though the search
            may have gone on since: one that is no more in the front then is refused.
          top: so many of the best measured networks are compared by validation images after full
            training, and the best of them is taken; None: no comparison.
          **overrides: other keys, as `winner={"mixup": 0.2}` or `seed=1`; winner.*, children.*,
            task.augment.*, latency.* and seed, but for children.steps and winner.finalists, which
            are of the search.

        Raises UserError for wrong input, and for a search on arrays or with objects where this
        result was not given them; RuntimeError where the training failed, and nothing is replaced.
        """
        short = {} if steps is None else {"winner.steps": steps}
        changes = config_lib.collect(overrides, short)
        given = [f"--config.{name}={value}" for name, value in changes.items()]
        compared = 0 if top is None else _whole("top", top)
        network = 0 if compared and pick == 0 else self._network(pick)
        found = retrain.retrain(self.workdir, given, network, compared, self._build)
        self.__dict__.pop("model", None)  # another one is kept now
        return found

    def export(
        self,
        out: str | os.PathLike[str],
        formats: str | Sequence[str] = export.DEFAULT,
        images: Any = None,
        labels: Any = None,
        pick: int | Mapping[str, Any] | None = None,
    ) -> pathlib.Path:
        """Writes the kept network for other programs, a folder for each format; their folder.

        As `python -m fnas_jax.export`, which says more. `formats`: some of "safetensors", "flax",
        "jax" and "onnx", or one. Every format is judged by the test images
        of the task, or by `images` and their `labels`, which a search on arrays needs where this
        result was not given them. `pick`: refused unless this network, as `retrain` takes it, is
        what is kept. Raises UserError for wrong input, and
        RuntimeError where a format gives another accuracy.
        """
        folder = pathlib.Path(out).expanduser()
        network = None if pick is None else self._network(pick)
        if not export.export(self.workdir, folder, formats, images, labels, network, self._build):
            raise RuntimeError("a format differs from the network that is kept, as was printed")
        return folder

    def _network(self, pick: int | Mapping[str, Any]) -> Mapping[str, Any]:
        """The network that `pick` is in this result, with its number there. Raises UserError."""
        if isinstance(pick, Mapping):
            return pick
        number = _whole("pick", pick)
        return pareto.choose(self.content, number) | {"pick": number}

    def report(self) -> pathlib.Path:
        """Writes report.html into the workdir; its path."""
        return report.write(str(self.workdir))


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name} is {value!r}; it must be a whole number") from None
