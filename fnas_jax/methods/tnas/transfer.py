"""What a knowledge store holds of other tasks, and what tells their data sets apart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.knowledge import history
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.tnas import features, source_tasks
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.set_encoder import Sample
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Task

LOG = logging.getLogger(__name__)
VECTOR = "vector/"  # the names of a task's own numbers among its statistics


class Transfer(NamedTuple):
    """The source tasks of a store."""

    names: list[str]  # of the tasks
    source: SourceTasks  # all their rows
    support: SourceTasks  # those that predictions are conditioned on
    features: int  # numbers that describe an image


class Description(NamedTuple):
    """What tells Q source tasks and the new one apart; neither: learnt codes do."""

    sample: Sample | None  # features of images
    vectors: Array | None  # [Q + 1, Z] users' numbers
    features: int  # numbers that describe an image


def load(config: Tnas, space: Space, task: Task, knowledge: Knowledge | None) -> Transfer | None:
    """The measured rows of tasks of the space other than `task`; None where they are too few.

    Data sets are compared by their images where the store has those of every task, else by the
    users' vectors, else by codes that are learnt task by task. Raises UserError.
    """
    vector = parse_vector(config.task_vector)
    if knowledge is None:
        return None
    if vector:
        known = history.task_statistics(knowledge.history).get(task.name, {})
        numbers = {f"{VECTOR}{i}": number for i, number in enumerate(vector)}
        history.record_task(knowledge.history, task.name, known | numbers)
    rows = history.source_rows(knowledge.history, space, task.name, knowledge.until)
    if rows is None:
        return None
    unique, task_of = np.unique(rows.task, return_inverse=True)
    names = [str(name) for name in unique]
    described = describe(config, names, task, knowledge, vector)
    source = source_tasks.gather(
        space, rows.decisions, rows.reward, task_of, described.sample, config.target
    )._replace(vectors=described.vectors)
    support = source_tasks.support(source, config.support)
    return Transfer(names, source, support, described.features)


def parse_vector(text: str) -> tuple[float, ...]:
    """The numbers of `tnas.task_vector`; () for none. Raises UserError."""
    try:
        return tuple(float(number) for number in text.split(",")) if text.strip() else ()
    except ValueError:
        raise UserError(
            f"tnas.task_vector is {text!r}; it must be numbers joined by commas"
        ) from None


def describe(
    config: Tnas, names: list[str], task: Task, knowledge: Knowledge, vector: tuple[float, ...]
) -> Description:
    """What the store knows of the data of the tasks `names` and of the new `task`."""
    if not config.data_encoder:
        return Description(None, None, 1)
    images = history.task_images(knowledge.history)
    if task.sample_images is not None and all(name in images for name in names):
        every = [images[name] for name in names] + [task.sample_images]
        extract = features.EXTRACTORS[config.features]
        scaled = [one.astype(np.float32) / 255 for one in every]
        sample = features.sample(scaled, extract, config.images)
        return Description(sample, None, sample.features.shape[-1])
    known = history.task_statistics(knowledge.history)
    given = [own_vector(known.get(name, {})) for name in names] + [vector]
    if vector and all(len(numbers) == len(vector) for numbers in given):
        return Description(None, jnp.asarray(given, jnp.float32), 1)
    LOG.warning(
        "there are no images of %s: codes of the known tasks are learnt, and that of the new one"
        " is 0, their prior mean (tnas.task_vector would describe it)",
        task.name if task.sample_images is None else "some of the known tasks",
    )
    return Description(None, None, 1)


def own_vector(statistics: dict[str, float]) -> tuple[float, ...]:
    """The user's numbers among the statistics of a task."""
    own = {n: v for n, v in statistics.items() if n.startswith(VECTOR)}
    return tuple(own[f"{VECTOR}{i}"] for i in range(len(own)))
