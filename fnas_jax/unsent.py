"""What Weights & Biases and MLflow lack of a search whose last process could not send it all."""

from __future__ import annotations

import pathlib
from typing import Any

import ml_collections

from fnas_jax import summary
from fnas_jax.core import config as config_lib
from fnas_jax.core import run_json, tracking
from fnas_jax.core.logging import known, send_again
from fnas_jax.ship import best


def about(config: ml_collections.ConfigDict, folder: pathlib.Path, run: str) -> tracking.About:
    """What services are told of the search in `folder`, whose id is `run`."""
    name = config.log.run_name or folder.absolute().name
    return tracking.About(run, name, folder, config_lib.flatten(config))


def made(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is kept of a finished search there."""
    places = (folder / "result.json", folder / best.NAME)
    return [place for place in places if place.exists()]


def send(config: ml_collections.ConfigDict, folder: pathlib.Path, result: dict[str, Any]) -> None:
    """Sends what is missing of the search in `folder`, whose `result` that is."""
    names = tracking.lacking(config.log, folder)
    if not names:
        return
    whose = about(config, folder, run_json.read_run(folder).id)
    with tracking.opened(config.log, whose, begins=False, names=names) as tracked:
        send_again(folder / "metrics.jsonl", tracked)
        tracked.keep(known(summary.figures(result)), made(folder))
