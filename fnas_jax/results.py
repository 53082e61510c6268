"""What a search has found, as Python objects: read from its folder, so that it outlives them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pathlib
from typing import Any

import ml_collections

from fnas_jax import main, registry, report
from fnas_jax.core import workdir
from fnas_jax.knowledge import history
from fnas_jax.spaces.base import Space


class Result:
    """A finished search. Figures are those of result.json; trials are those of the history."""

    def __init__(self, folder: pathlib.Path):
        """Reads the search in `folder`. Raises UserError where it is not finished."""
        self.workdir = folder
        self.content: dict[str, Any] = workdir.read_json(folder / "result.json")

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
        return self.content["pareto"]

    @functools.cached_property
    def trials(self) -> Any:
        """Every proposal in its order: a pandas DataFrame if pandas is installed, else dicts."""
        records = trials(self.workdir, self.config, _space(self.config))
        if importlib.util.find_spec("pandas") is None:
            return records
        return importlib.import_module("pandas").DataFrame.from_records(records)

    def report(self) -> pathlib.Path:
        """Writes report.html into the workdir; its path."""
        return report.write(str(self.workdir))


def trials(
    folder: pathlib.Path, config: ml_collections.ConfigDict, space: Space
) -> list[dict[str, Any]]:
    """The rows that the run in `folder` wrote, a dict each; None where a number is unknown."""
    identity = workdir.identify(folder)
    known = history.open_(workdir.knowledge_folder(folder, config))
    with contextlib.closing(known):
        rows = history.rows(known, space, trained=None, run_id=identity.id)
    numbers = {name: getattr(rows, name) for name in history.NUMBERS}
    return [
        {
            "number": i,
            "text": space.describe(arch)["text"],
            "arch": arch.tolist(),
            "trained": bool(rows.trained[i]),
            "ok": bool(rows.ok[i]),
            **{k: None if v[i] != v[i] else float(v[i]) for k, v in numbers.items()},
        }
        for i, arch in enumerate(rows.decisions)
    ]


def _space(config: ml_collections.ConfigDict) -> Space:
    """The space of a run; a table brings its own."""
    if config.task.name.startswith("tabular/"):
        return registry.build_task(config).space
    return registry.SPACES[config.space.name](config.space)
