"""Decisions without structure: for tables and functions of the user's own.

Decisions have no meaning here, so no two decision vectors are the same network, every decision
is a block of its own, and the graph is a chain of the decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces import base


def make(
    cardinalities: Sequence[int], name: str = "categorical", names: Sequence[str] | None = None
) -> base.Space:
    """A space of T = len(cardinalities) independent decisions.

    `names` are the T decisions' names, by default "decision_0"... The text form of an
    architecture is its decisions joined by commas. Raises UserError when there are no decisions,
    a cardinality is below 1, or the numbers of names and cardinalities differ.
    """
    cards = tuple(int(k) for k in cardinalities)
    if not cards or min(cards) < 1:
        raise UserError(f"cardinalities must be one or more integers of at least 1, got {cards}")
    names = tuple(names) if names is not None else tuple(f"decision_{t}" for t in range(len(cards)))
    if len(names) != len(cards):
        raise UserError(f"{len(names)} names were given for {len(cards)} decisions")
    return base.Space(
        name=name,
        cardinalities=cards,
        names=names,
        sample=partial(base.sample_uniform, cards),
        validate=partial(base.in_range, cards),
        canonical=partial(_canonical, cards),
        describe=partial(_describe, names),
        parse=partial(_parse, cards),
        blocks=partial(_blocks, cards),
        graph=partial(_graph, cards),
        num_ops=2 + sum(cards),
    )


def choices(options: Mapping[str, Sequence[Any]], name: str = "categorical") -> base.Space:
    """A space of decisions with names and named choices, e.g. {"depth": [1, 2], "op": ["a", "b"]}.

    Choices are texts, numbers, booleans or None, in order where they are sizes. `describe` has them
    as they were given, and the text "depth=2,op=a". Raises UserError for a decision without
    choices, one that is there twice, or a name or text with a comma or "=".
    """
    for decision, values in options.items():
        if isinstance(values, str) or not len(values):
            raise UserError(f"{decision!r} has no list of choices")
        if not all(isinstance(v, str | int | float | bool | None) for v in values):
            raise UserError(f"the choices of {decision!r} must be texts, numbers or None")
        texts = [str(v) for v in values]
        if len(set(texts)) < len(texts):
            raise UserError(f"{decision!r} has a choice twice: {', '.join(texts)}")
        bad = next((t for t in (decision, *texts) if "," in t or "=" in t or not t.strip()), None)
        if bad is not None:
            raise UserError(f"{bad!r} of {decision!r} is empty or holds ',' or '='")
    values_of = tuple(tuple(values) for values in options.values())
    space = make([len(values) for values in values_of], name, tuple(options))
    return space._replace(
        choices=values_of,
        describe=partial(_describe_choices, space.names, values_of),
        parse=partial(_parse_choices, space.names, values_of),
    )


def _describe_choices(
    names: tuple[str, ...], values_of: tuple[tuple[Any, ...], ...], arch: Any
) -> dict[str, Any]:
    chosen = [values[int(a)] for values, a in zip(values_of, np.asarray(arch), strict=True)]
    decisions = dict(zip(names, chosen, strict=True))
    return {"text": ",".join(f"{n}={v}" for n, v in decisions.items()), "decisions": decisions}


def _parse_choices(
    names: tuple[str, ...], values_of: tuple[tuple[Any, ...], ...], text: str
) -> np.ndarray:
    given = dict(part.partition("=")[::2] for part in text.split(","))
    if set(given) != set(names):
        raise UserError(f"{text!r} must say {', '.join(names)}")
    found = []
    for name, values in zip(names, values_of, strict=True):
        texts = [str(v) for v in values]
        if given[name] not in texts:
            raise UserError(f"{name} is {given[name]!r}; allowed are {', '.join(texts)}")
        found.append(texts.index(given[name]))
    return np.array(found, np.int32)


def _canonical(cards: tuple[int, ...], archs: Array) -> Array:
    chex.assert_shape(archs, (None, len(cards)))
    return archs


def _describe(names: tuple[str, ...], arch: Any) -> dict[str, Any]:
    decisions = [int(a) for a in np.asarray(arch)]
    return {
        "text": ",".join(map(str, decisions)),
        "decisions": dict(zip(names, decisions, strict=True)),
    }


def _parse(cards: tuple[int, ...], text: str) -> np.ndarray:
    parts = text.split(",")
    if len(parts) != len(cards):
        raise UserError(f"{text!r} has {len(parts)} decisions; {len(cards)} are needed")
    for t, (part, k) in enumerate(zip(parts, cards, strict=True)):
        if not part.strip().isdecimal() or int(part) >= k:
            raise UserError(f"decision {t} of {text!r} must be an integer in 0..{k - 1}")
    return np.array([int(part) for part in parts], np.int32)


def _blocks(cards: tuple[int, ...], archs: Array) -> Array:
    """[N, T, max K]: the one-hot code of each decision."""
    chex.assert_shape(archs, (None, len(cards)))
    return (archs[..., None] == jnp.arange(max(cards))).astype(jnp.float32)


def _graph(cards: tuple[int, ...], archs: Array) -> tuple[Array, Array]:
    """A chain input -> decisions -> output; operations 0: input, 1: output, then all choices."""
    chex.assert_shape(archs, (None, len(cards)))
    first = 2 + np.concatenate([[0], np.cumsum(cards[:-1])]).astype(np.int32)
    return chain(archs + first)


def chain(ops: Array) -> tuple[Array, Array]:
    """[N, L] operations -> the graph of a chain between an input (0) and an output (1) node.

    Returns ops [N, L + 2] int32 and adjacency [N, L + 2, L + 2] bool; `adjacency[n, i, j]` means
    that node j reads node i.
    """
    n, length = ops.shape
    ends = jnp.zeros((n, 1), jnp.int32)
    nodes = jnp.concatenate([ends, ops.astype(jnp.int32), ends + 1], axis=1)
    edges = jnp.asarray(np.eye(length + 2, k=1, dtype=bool))
    return nodes, jnp.broadcast_to(edges, (n, length + 2, length + 2))
