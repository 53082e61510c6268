"""FNAS from a configuration and a knowledge store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.fnas import (
    acquire,
    critic,
    decision,
    fnas,
    imagination,
    replay,
    transfer,
    uac,
)
from fnas_jax.methods.rl import ppo
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

LOG = logging.getLogger(__name__)


def build(
    config: Any, space: Space, task: Task, knowledge: Knowledge | None
) -> tuple[SearchMethod, Evaluator]:
    """FNAS with the numbers of `config.fnas`, `.uac`, `.aeb` and `.ppo`.

    What the knowledge store holds of other tasks of the space warms the critic up.
    """
    numbers = configure(config)
    if numbers.ppo.minibatches > 1 and numbers.batch % numbers.ppo.minibatches:
        raise UserError(
            f"ppo.minibatches is {numbers.ppo.minibatches}; it must divide search.batch"
            f" ({numbers.batch})"
        )
    if numbers.verify.verify > numbers.batch:
        raise UserError(
            f"fnas.verify is {numbers.verify.verify}; at most search.batch ({numbers.batch})"
            " is allowed"
        )
    if config.uac.hidden % 2:
        raise UserError(f"uac.hidden is {config.uac.hidden}; it must be even")
    foreign = None
    if numbers.uac_enabled and config.fnas.transfer and knowledge is not None:
        foreign = foreign_samples(
            space, task.name, task.statistics or {}, knowledge, config.fnas.foreign_rows
        )
    if foreign is not None:
        LOG.info(
            "the critic starts from %d rows of %d other tasks",
            foreign.rows,
            len(foreign.embedding) - 1,
        )
    return fnas.make(space, numbers, foreign), task.evaluator


def configure(config: Any) -> fnas.Config:
    """The method's numbers from the sections of a configuration."""

    def part(kind: Any, section: Any) -> Any:
        return kind(**{name: section[name] for name in kind._fields if name in section})

    section, aeb = config.fnas, config.aeb
    return fnas.Config(
        batch=config.search.batch,
        hidden=config.ppo.hidden,
        uac_enabled=config.uac.enabled,
        aeb_enabled=aeb.enabled,
        capacity=max(aeb.capacity, config.search.batch, acquire.ELITE),
        replay=part(replay.Config, aeb),
        verify=part(acquire.Config, section),
        uac=uac.Config(
            uncertainty=config.uac.uncertainty,
            rows=config.uac.rows,
            critic=part(critic.Config, config.uac),
            decision=part(decision.Config, config.uac),
            transfer=part(transfer.Config, section),
        ),
        imagination=imagination.Config(section.imagination, section.kl_max),
        ppo=part(ppo.Config, config.ppo),
    )


def foreign_samples(
    space: Space, task: str, statistics: dict[str, float], knowledge: Knowledge, most: int
) -> transfer.Foreign | None:
    """Measured rows of other tasks of the space, `most` of them drawn where there are more.

    None where there are fewer than `history.MIN_ROWS`. Tasks are told apart by the statistics of
    their data where the store knows them; `statistics` are the new task's.
    """
    found = history.source_rows(knowledge.history, space, task, knowledge.until)
    if found is None:
        return None
    names, task_of = np.unique(found.task, return_inverse=True)
    known = history.task_statistics(knowledge.history)
    embedding = transfer.embed([known.get(name, {}) for name in names] + [statistics])
    return transfer.Foreign(
        found.decisions,
        found.reward.astype(np.float32),
        task_of.astype(np.int32),
        embedding,
        min(most, len(found.reward)),
    )
