"""TNAS from a configuration and a knowledge store."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from fnas_jax.core import reward as rewards
from fnas_jax.core.config import read
from fnas_jax.core.types import UserError
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods import candidates
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.tnas import method, stored, transfer
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.set_encoder import HEADS
from fnas_jax.methods.tnas.transfer import Transfer
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

LOG = logging.getLogger(__name__)


def build(
    config: Any, space: Space, task: Task, knowledge: Knowledge | None
) -> tuple[SearchMethod, Evaluator]:
    """TNAS with the numbers of `config.tnas`, which learns from the store's other tasks.

    Weights that were learnt from the same rows with the same settings are taken from the store;
    others are learnt before the search, and stored. Raises UserError for numbers that do not fit
    together.
    """
    found = load(config, space, task, knowledge)
    return from_transfer(config, space, task, knowledge, found)


def load(config: Any, space: Space, task: Task, knowledge: Knowledge | None) -> Transfer | None:
    """What the search learns from; None where that is nothing. Raises UserError."""
    numbers = configure(config)
    if not numbers.transfer:
        return None
    return transfer.load(numbers, rewards.define(config, task.measure), space, task, knowledge)


def from_transfer(
    config: Any, space: Space, task: Task, knowledge: Knowledge | None, found: Transfer | None
) -> tuple[SearchMethod, Evaluator]:
    """As `build`, of what `load` has found."""
    numbers = configure(config)
    context = functools.partial(
        method.context,
        space,
        numbers,
        proposals=config.search.batch,
        capacity=candidates.places(config, task),
        allowed=task.allowed,
        existing=task.existing,
    )
    if found is None:
        return method.make(context()), task.evaluator
    place = stored.place(numbers, config.seed, space, found, knowledge)
    weights = stored.load(place)
    LOG.info(
        "the kernel %s %d rows of %d other tasks",
        "learns from" if weights is None else "was learnt from",
        int(found.source.mask.sum()),
        len(found.labels),
    )
    ctx = context(
        source=found.source,
        weights=weights,
        support=found.support,
        features=found.features,
        keep=None if place is None else functools.partial(stored.save, place),
    )
    return method.make(ctx), task.evaluator


def configure(config: Any) -> Tnas:
    """The method's numbers from the section `tnas`. Raises UserError."""
    numbers = read(Tnas, config.tnas)
    if numbers.hidden % HEADS:
        raise UserError(f"tnas.hidden is {numbers.hidden}; it must be a multiple of {HEADS}")
    if not numbers.fusion:
        raise UserError("tnas.fusion is (); it needs one layer or more")
    return numbers
