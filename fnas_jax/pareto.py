"""The networks that no other one beats: accuracy against every cost that is known."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fnas_jax.core.limits import UNITS
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.knowledge.history import Rows
from fnas_jax.spaces.base import Space

LOG = logging.getLogger(__name__)


def front(accuracy: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """[n] bool: no other has at least the `accuracy` [n] at no higher `costs` [n, C], one better.

    Of equal ones, the first is in the front.
    """
    # The most accurate first, of equal ones the cheapest, then the earliest: what beats a network
    # stands before it.
    order = np.lexsort((*costs.T[::-1], -accuracy))
    chosen: list[int] = []
    for i in order:
        if not (costs[chosen] <= costs[i]).all(axis=1).any():
            chosen.append(i)
    found = np.zeros(len(accuracy), bool)
    found[chosen] = True
    return found


def networks(rows: Rows, space: Space, sign: float = 1.0) -> list[dict[str, Any]]:
    """The front of the measured ones among `rows`, the most accurate first.

    `value` is the accuracy, or the task's own metric (`sign`: of its `Measure`). A cost counts
    that is known of all of them; others stand there as None. Children that were stopped early are
    left out: what they would have come to is an expectation.
    """
    whole = rows.trained & rows.ok & (rows.stopped == 0)
    measured = np.flatnonzero(whole & np.isfinite(rows.accuracy))
    costs = {name: getattr(rows, name)[measured] for name in COSTS}
    known = [values for values in costs.values() if np.isfinite(values).all()]
    table = np.column_stack(known) if known else np.zeros((len(measured), 0))
    chosen = measured[front(rows.accuracy[measured], table)]
    return [
        {
            "arch": rows.decisions[i],
            "text": space.describe(rows.decisions[i])["text"],
            "accuracy": rows.accuracy[i],
            "value": sign * rows.accuracy[i],
            **{name: getattr(rows, name)[i] for name in COSTS},
        }
        for i in chosen[np.argsort(-rows.accuracy[chosen], kind="stable")]
    ]


def choose(result: Mapping[str, Any], pick: int) -> dict[str, Any]:
    """The winner (0), or number `pick` of the front, from 1, of the content of result.json.

    Raises UserError where there is no such network.
    """
    if result["best"] is None:
        raise UserError("the search found no architecture that gave a result")
    if pick == 0:
        return result["best"]
    front = result.get("pareto", [])
    if not 1 <= pick <= len(front):
        listed = "; ".join(f"{i} is {p['text']}" for i, p in enumerate(front, start=1))
        raise UserError(f"pick is {pick}; the front has {len(front)} networks: {listed}")
    return front[pick - 1]


def number(result: Mapping[str, Any], pick: int | Mapping[str, Any]) -> int:
    """The number by which `choose` finds `pick`: itself, or that of the network which it is.

    Such a network has `arch`, by which it is looked up, because numbers change when a search grows;
    `pick`, its number when it was taken, decides where the winner is in the front, too. Raises
    UserError where it is neither any more.
    """
    if not isinstance(pick, Mapping):
        return pick
    if "arch" not in pick:
        raise UserError("pick has no 'arch'; it must be a number, or a network of Result.pareto")
    known = dict(enumerate(result.get("pareto", []), start=1))
    if result["best"] is not None:
        known[0] = result["best"]
    same = [i for i, network in known.items() if _arch(network) == _arch(pick)]
    if not same:
        raise UserError(
            f"pick is {words(pick)}, which is neither the winner nor of the front any more: the"
            " search has gone on since; fnas_jax.Result(workdir).pareto is the front of now"
        )
    return pick["pick"] if pick.get("pick") in same else same[0]


def words(network: Mapping[str, Any]) -> str:
    """An entry of the front, or the winner, in the words of its space."""
    text = network.get("text") or network.get("description", {}).get("text")
    return str(text or _arch(network))


def _arch(network: Mapping[str, Any]) -> list[int]:
    return np.asarray(network["arch"]).tolist()


def within(front: Sequence[dict[str, Any]], most: Mapping[str, float | None]) -> dict[str, Any]:
    """The first of `front`, the most accurate, that costs no more than `most` by names of COSTS.

    With its number as `pick`, from 1. A bound of None is none. Networks of which such a cost is not
    known are left out, which a warning tells. Raises UserError where no network is left.
    """
    bounds = {name: bound for name, bound in most.items() if bound is not None}
    for name, bound in bounds.items():
        if isinstance(bound, bool) or not isinstance(bound, numbers.Real):
            raise UserError(f"max_{name} is {bound!r}; it must be a number")
    known = [p for p in front if all(p[name] is not None for name in bounds)]
    if len(known) < len(front):
        LOG.warning(
            "%d of %d networks of the front are left out: %s of them is not known, as nothing asked"
            " for it",
            *(len(front) - len(known), len(front), " or ".join(bounds)),
        )
    for i, network in enumerate(front, start=1):
        if network in known and all(network[name] <= bound for name, bound in bounds.items()):
            return network | {"pick": i}
    raise UserError(_none_within(front, known, bounds))


def _none_within(
    front: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]], bounds: Mapping[str, float]
) -> str:
    """Why no network of `front`, of which `known` have all costs, keeps all `bounds`."""
    if not front:
        return "the front is empty"
    asked = {name: f"at most {bound:g} {UNITS[name]}" for name, bound in bounds.items()}
    alone = [n for n, bound in bounds.items() if not any(p[n] <= bound for p in known)]
    if not alone:  # each is kept by some network
        return f"no network of the front keeps all of them together: {', '.join(asked.values())}"
    least = (f"{asked[n]} was asked for, the least is {cheapest(known, n)}" for n in alone)
    return f"no network of the front is within: {'; '.join(least)}"


def cheapest(networks: Sequence[dict[str, Any]], name: str) -> str:
    """The least cost `name` of `networks`, in words."""
    return f"{min(p[name] for p in networks):.4g}" if networks else "not known"
