"""What a search has found, as Python objects: read from its folder, so that it outlives them."""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ml_collections

from fnas_jax import export, main, outcome, plots, report, trials
from fnas_jax.core import workdir
from fnas_jax.ship.model import Model, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Result:
    """A finished search. Figures are those of result.json; trials are those of the history."""

    def __init__(self, folder: str | os.PathLike[str]):
        """Reads the search in `folder`. Raises UserError where it is not finished."""
        self.workdir = pathlib.Path(folder).expanduser()
        self.content: dict[str, Any] = workdir.read_json(self.workdir / "result.json")

    def __repr__(self) -> str:
        return main.summary(self.content, str(self.workdir))

    @property
    def config(self) -> ml_collections.ConfigDict:
        """The configuration of the run."""
        return workdir.read_config(self.workdir)

    @property
    def best(self) -> dict[str, Any] | None:
        """The winner in the search: `arch`, `description`, `accuracy`, `reward`, costs."""
        return self.content["best"]

    @property
    def winner(self) -> dict[str, Any] | None:
        """The winner after the search: trained fully and tested, beside a reference network."""
        return self.content["winner"]

    @property
    def counts(self) -> dict[str, int]:
        """How many architectures were proposed, trained, predicted, failed, .."""
        return self.content["counts"]

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

    def plot_history(self, ax: Axes | None = None) -> Axes:
        """Plots the metric of every trained network, and of the best so far; the matplotlib Axes.

        Into `ax`, or a new figure. Raises UserError without matplotlib.
        """
        return plots.history(self._records, outcome.measure(self.workdir), ax)

    def plot_pareto(self, cost: str = "mflops", ax: Axes | None = None) -> Axes:
        """Plots the metric of every measured network against its `cost`; the matplotlib Axes.

        A line joins those that no other beats in both. `cost`: "mflops", "params_m" or
        "latency_ms". Into `ax`, or a new figure. Raises UserError for a cost that the search does
        not know, and without matplotlib.
        """
        return plots.front(self._records, outcome.measure(self.workdir), cost, ax)

    @functools.cached_property
    def model(self) -> Model:
        """The trained winner, with `predict` and `evaluate`. Raises UserError without one."""
        return load(self.workdir)

    def export(
        self,
        out: str | os.PathLike[str],
        formats: Sequence[str] = export.DEFAULT,
        images: Any = None,
        labels: Any = None,
    ) -> pathlib.Path:
        """Writes the trained winner for other programs, a folder for each format; their folder.

        As `python -m fnas_jax.export`, which says more. Every format is judged by the test images
        of the task, or by `images` and their `labels`, which a search on arrays needs. Raises
        UserError for wrong input, and RuntimeError where a format gives another accuracy.
        """
        folder = pathlib.Path(out).expanduser()
        if not export.export(self.workdir, folder, formats, images, labels):
            raise RuntimeError("a format differs from the network that is kept, as was printed")
        return folder

    def report(self) -> pathlib.Path:
        """Writes report.html into the workdir; its path."""
        return report.write(str(self.workdir))
