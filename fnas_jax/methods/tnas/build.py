"""TNAS from a configuration and a knowledge store."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.knowledge import history as rows_of
from fnas_jax.knowledge import surrogates
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.tnas import features, meta, networks, source_tasks
from fnas_jax.methods.tnas import method as tnas
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.set_encoder import HEADS
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

LOG = logging.getLogger(__name__)
VECTOR = "vector/"  # the names of a task's own numbers among its statistics


class Learnt(NamedTuple):
    """Weights with their tau on what was held out, as they are stored."""

    weights: Weights
    tau: Array


class Foreign(NamedTuple):
    """The rows of other tasks that a store holds."""

    names: list[str]  # of the tasks
    history: SourceTasks  # all of them
    support: SourceTasks  # those that predictions are conditioned on
    features: int  # numbers that describe an image


def build(
    config: Any, space: Space, task: Task, knowledge: Knowledge | None
) -> tuple[SearchMethod, Evaluator]:
    """TNAS with the numbers of `config.tnas`, which learns from the store's other tasks.

    Weights that were learnt from the same rows with the same settings are taken from the store;
    others are learnt before the search, and stored. Raises UserError for numbers that do not fit
    together.
    """
    numbers = configure(config)
    found = foreign(config, space, task, knowledge) if config.tnas.transfer else None
    if found is None:
        return tnas.make(space, numbers), task.evaluator
    learnt = stored(config, space, found, knowledge)
    LOG.info(
        "the kernel %s %d rows of %d other tasks",
        "learns from" if learnt is None else "was learnt from",
        int(found.history.mask.sum()),
        len(found.names),
    )
    method = tnas.make(
        space,
        numbers,
        found.history,
        None if learnt is None else learnt.weights,
        found.support,
        found.features,
        keep=lambda weights, tau: keep(config, space, found, knowledge, weights, tau),
    )
    return method, task.evaluator


def configure(config: Any) -> tnas.Config:
    """The method's numbers from the section `tnas`. Raises UserError."""
    section = config.tnas
    if section.hidden % HEADS:
        raise UserError(f"tnas.hidden is {section.hidden}; it must be a multiple of {HEADS}")
    if not section.fusion:
        raise UserError("tnas.fusion is (); it needs one layer or more")

    def part(kind: Any) -> Any:
        return kind(**{name: section[name] for name in kind._fields if name in section})

    net = part(networks.Config)._replace(graph=section.graph_encoder, data=section.data_encoder)
    learning = part(meta.Config)._replace(method=section.meta)
    return part(tnas.Config)._replace(
        batch=config.search.batch,
        # A search ends with the iteration in which the budget is reached.
        capacity=config.search.budget + config.search.batch,
        net=net,
        meta=learning,
    )


def foreign(config: Any, space: Space, task: Task, knowledge: Knowledge | None) -> Foreign | None:
    """The measured rows of tasks of the space other than `task`; None where they are too few.

    Data sets are compared by their images where the store has those of every task, else by the
    users' vectors, else by codes that are learnt task by task.
    """
    vector = _vector(config.tnas.task_vector)
    if knowledge is None:
        return None
    if vector:
        known = rows_of.task_statistics(knowledge.history).get(task.name, {})
        numbers = {f"{VECTOR}{i}": number for i, number in enumerate(vector)}
        rows_of.record_task(knowledge.history, task.name, known | numbers)
    found = rows_of.source_rows(knowledge.history, space, task.name, knowledge.until)
    if found is None:
        return None
    names, task_of = np.unique(found.task, return_inverse=True)
    told = [str(name) for name in names]
    sample, vectors, width = _data(config, told, task, knowledge, vector)
    whole = source_tasks.gather(
        space, found.decisions, found.reward, task_of, sample, config.tnas.target
    )._replace(vectors=vectors)
    support = source_tasks.support(whole, config.tnas.support)
    return Foreign(told, whole, support, width)


def _vector(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise UserError(
            f"tnas.task_vector is {text!r}; it must be numbers joined by commas"
        ) from None


def _data(
    config: Any, names: list[str], task: Task, knowledge: Knowledge, vector: tuple[float, ...]
) -> tuple[Any, Array | None, int]:
    """(sample of images, vectors, numbers that describe an image): what tells tasks apart."""
    if not config.tnas.data_encoder:
        return None, None, 1
    images = rows_of.task_images(knowledge.history)
    if task.sample_images is not None and all(name in images for name in names):
        every = [images[name] for name in names] + [task.sample_images]
        extract = features.EXTRACTORS[config.tnas.features]
        scaled = [one.astype(np.float32) / 255 for one in every]
        sample = features.sample(scaled, extract, config.tnas.images)
        return sample, None, sample.features.shape[-1]
    known = rows_of.task_statistics(knowledge.history)
    given = [_numbers(known.get(name, {})) for name in names] + [vector]
    if vector and all(len(numbers) == len(vector) for numbers in given):
        return None, jnp.asarray(given, jnp.float32), 1
    LOG.warning(
        "there are no images of %s: codes of the known tasks are learnt, and that of the new one"
        " is 0, their prior mean (tnas.task_vector would describe it)",
        task.name if task.sample_images is None else "some of the known tasks",
    )
    return None, None, 1


def _numbers(statistics: dict[str, float]) -> tuple[float, ...]:
    own = {n: v for n, v in statistics.items() if n.startswith(VECTOR)}
    return tuple(own[f"{VECTOR}{i}"] for i in range(len(own)))


def digest(config: Any, found: Foreign) -> str:
    """The name of the weights that these settings learn from these rows."""
    numbers = configure(config)
    seen = hashlib.blake2b(digest_size=12)
    seen.update(source_tasks.digest(found.names, found.history).encode())
    settings = (numbers.net, numbers.meta, config.tnas.features, config.tnas.images, config.seed)
    seen.update(repr(settings).encode())
    return seen.hexdigest()


def _place(config: Any, space: Space, found: Foreign, knowledge: Knowledge | None) -> Any:
    if knowledge is None or knowledge.pool is None:
        return None
    return surrogates.place(knowledge.pool.parent, space.name, digest(config, found))


def stored(config: Any, space: Space, found: Foreign, knowledge: Knowledge | None) -> Learnt | None:
    """The store's weights for these rows and settings, or None."""
    path = _place(config, space, found, knowledge)
    if path is None:
        return None
    template = jax.eval_shape(lambda key: first(config, space, found, key), jax.random.key(0))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), template)
    return surrogates.load(path, Learnt(blank, jnp.float32(0)))


def keep(
    config: Any,
    space: Space,
    found: Foreign,
    knowledge: Knowledge | None,
    weights: Weights,
    tau: float,
) -> None:
    """Stores weights for later searches."""
    path = _place(config, space, found, knowledge)
    if path is not None:
        surrogates.save(path, Learnt(weights, jnp.float32(tau)))


def first(config: Any, space: Space, found: Foreign, key: Array) -> Weights:
    """Weights that have learnt nothing."""
    tasks = source_tasks.codes_needed(found.history)
    return networks.init(key, space, configure(config).net, tasks, found.features)
