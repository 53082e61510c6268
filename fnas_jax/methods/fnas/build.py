"""FNAS from a configuration and a knowledge store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from fnas_jax.core import reward as rewards
from fnas_jax.core.config import read
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import sources
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.sources import Asker
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.fnas import method, transfer
from fnas_jax.methods.fnas.config import Aeb, Config, Fnas, Uac
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

# What Gaussian processes have no use for.
NETWORKS = ("members", "hidden", "gain", "prior", "noise", "bootstrap", "steps")
OF_FNAS = ("optimism", "shift", "rank")

LOG = logging.getLogger(__name__)


def build(
    config: Any, space: Space, task: Task, knowledge: Knowledge | None
) -> tuple[SearchMethod, Evaluator]:
    """FNAS with the numbers of `config.fnas`, `.uac`, `.aeb` and `.ppo`.

    What the knowledge store holds of other tasks of the space warms the critic up.
    """
    numbers = configure(config)
    source = None
    if numbers.uac.enabled and numbers.fnas.transfer and knowledge is not None:
        asker = Asker(
            space, task.name, task.evaluator.protocol, rewards.define(config, task.measure)
        )
        source = source_tasks(asker, task.statistics or {}, knowledge, numbers.fnas.foreign_rows)
    if source is not None:
        LOG.info(
            "the critic starts from %d rows of %d other tasks",
            source.rows,
            len(source.embedding) - 1,
        )
    return method.make(space, numbers, source, task.existing), task.evaluator


def configure(config: Any) -> Config:
    """The method's numbers from the sections of a configuration. Raises UserError."""
    numbers = Config(
        batch=config.search.batch,
        fnas=read(Fnas, config.fnas),
        uac=read(Uac, config.uac),
        aeb=read(Aeb, config.aeb),
        ppo=read(Ppo, config.ppo),
    )
    if numbers.batch % numbers.ppo.minibatches:
        raise UserError(
            f"ppo.minibatches is {numbers.ppo.minibatches}; it must divide search.batch"
            f" ({numbers.batch})"
        )
    if numbers.fnas.verify > numbers.batch:
        raise UserError(
            f"fnas.verify is {numbers.fnas.verify}; at most search.batch ({numbers.batch})"
            " is allowed"
        )
    refuse_unused(numbers)
    if numbers.uac.hidden % 2:
        raise UserError(f"uac.hidden is {numbers.uac.hidden}; it must be even")
    return numbers


def refuse_unused(numbers: Config) -> None:
    """Raises UserError for numbers of networks that were changed where there are none."""
    if numbers.uac.uncertainty != "gp":
        return
    of_networks = [("uac", numbers.uac, Uac(), NETWORKS), ("fnas", numbers.fnas, Fnas(), OF_FNAS)]
    for section, chosen, default, names in of_networks:
        for name in names:
            value, usual = getattr(chosen, name), getattr(default, name)
            if value != usual:
                raise UserError(
                    f"{section}.{name} is {value}, which only a critic of networks reads; set"
                    f" uac.uncertainty=ensemble, or leave it at {usual}"
                )


def source_tasks(
    asker: Asker, statistics: dict[str, float], knowledge: Knowledge, most: int
) -> transfer.SourceTasks | None:
    """Measured rows of other tasks of the space, `most` of them drawn where there are more.

    None where there are fewer than `sources.MIN_ROWS`. Tasks are told apart by the statistics of
    their data where the store knows them; `statistics` are the new task's.
    """
    found = sources.load(asker, knowledge)
    if found is None:
        return None
    embedding = transfer.embed([numbers or {} for numbers in found.statistics] + [statistics])
    return transfer.SourceTasks(
        found.decisions,
        found.reward.astype(np.float32),
        found.task.astype(np.int32),
        embedding,
        min(most, len(found.reward)),
    )
