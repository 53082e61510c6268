"""What a knowledge store holds of other tasks, and what tells their data sets apart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.reward import Reward
from fnas_jax.core.types import Array, UserError
from fnas_jax.knowledge import sources, task_data
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.sources import Asker, Sources
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

    labels: list[str]  # of the tasks: name and protocol
    source: SourceTasks  # all their rows
    support: SourceTasks  # those that predictions are conditioned on
    features: int  # numbers that describe an image


class Description(NamedTuple):
    """What tells Q source tasks and the new one apart; neither: learnt codes do."""

    sample: Sample | None  # features of images
    vectors: Array | None  # [Q + 1, Z] users' numbers
    features: int  # numbers that describe an image


def load(
    config: Tnas, reward: Reward, space: Space, task: Task, knowledge: Knowledge | None
) -> Transfer | None:
    """The measured rows of tasks of the space other than `task`; None where they are too few.

    `reward` is the search's own, by which all rows are judged. Data sets are compared by their
    images where the store has those of every task, else by the users' vectors, else by codes that
    are learnt task by task. Raises UserError.
    """
    vector = parse_vector(config.task_vector)
    if knowledge is None:
        return None
    protocol = task.evaluator.protocol
    if vector:
        own = task_data.data_key(task.name, protocol)
        known = task_data.task_statistics(knowledge.history).get(own, {})
        numbers = {f"{VECTOR}{i}": number for i, number in enumerate(vector)}
        task_data.record_task(knowledge.history, task.name, known | numbers, protocol)
    rows = sources.load(Asker(space, task.name, protocol, reward), knowledge)
    if rows is None:
        return None
    described = describe(config, rows, task, vector)
    source = source_tasks.gather(
        space, rows.decisions, rows.reward, rows.task, described.sample, config.target
    )._replace(vectors=described.vectors)
    support = source_tasks.support(source, config.support)
    return Transfer(rows.labels, source, support, described.features)


def parse_vector(text: str) -> tuple[float, ...]:
    """The numbers of `tnas.task_vector`; () for none. Raises UserError."""
    try:
        return tuple(float(number) for number in text.split(",")) if text.strip() else ()
    except ValueError:
        raise UserError(
            f"tnas.task_vector is {text!r}; it must be numbers joined by commas"
        ) from None


def describe(config: Tnas, rows: Sources, task: Task, vector: tuple[float, ...]) -> Description:
    """What the store knows of the data of the tasks of `rows` and of the new `task`."""
    if not config.data_encoder:
        return Description(None, None, 1)
    images = rows.images
    every = [sample for sample in (*images, task.sample_images) if sample is not None]
    if len(every) == len(images) + 1:
        extract = features.EXTRACTORS[config.features]
        scaled = [one.astype(np.float32) / 255 for one in every]
        sample = features.sample(scaled, extract, config.images)
        return Description(sample, None, sample.features.shape[-1])
    given = [own_vector(statistics or {}) for statistics in rows.statistics] + [vector]
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
