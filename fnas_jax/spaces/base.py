"""The `Space` interface and the functions that hold for every space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import identity
from fnas_jax.core.types import Array, Features


class Space(NamedTuple):
    """A search space: T decisions, decision t with `cardinalities[t]` choices.

    All functions of arrays are pure, take and return whole batches, and work under `jit`.
    """

    name: str
    cardinalities: tuple[int, ...]  # T entries
    names: tuple[str, ...]  # T names of decisions, e.g. "block2/kernel"
    sample: Callable[[Array, int], Array]  # (key, n) -> [n, T] int32, uniform over decisions
    validate: Callable[[Array], Array]  # [N, T] -> [N] bool
    canonical: Callable[[Array], Array]  # [N, T] -> [N, T]; equal exactly for the same networks
    describe: Callable[[Any], dict[str, Any]]  # [T] -> JSON-ready; has the key "text"
    parse: Callable[[str], np.ndarray]  # `describe(arch)["text"]` -> [T] int32; UserError
    blocks: Callable[[Array], Array]  # [N, T] -> [N, S, F] float32 descriptors of blocks
    graph: Callable[[Array], tuple[Array, Array]]  # -> ops [N, V] int32, adjacency [N, V, V] bool
    num_ops: int  # `graph` operations are 0..num_ops-1
    spec: Any = None  # what networks/ needs to build the network; None: tables only
    # T tuples of what the choices of each decision stand for; (): they are numbers
    choices: tuple[tuple[Any, ...], ...] = ()
    # T choices of the network whose layers are as wide as those of any other; (): the last ones
    widest: tuple[int, ...] = ()
    words: tuple[tuple[str, ...], ...] = ()  # T tuples of choices for people; (): see `labels`
    # Where decisions are switches, off and on, of operations that are added up: how many each slot
    # of the network has, one slot behind the other, T in all. (): a decision is one choice of many
    slots: tuple[int, ...] = ()
    # What methods may go by beside the decisions, where a task offers something; no part of what
    # the space is
    features: Features | None = None

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """T tuples: the choices of each decision in words, or their numbers."""
        if self.words or self.choices:
            return self.words or tuple(tuple(map(str, values)) for values in self.choices)
        return tuple(tuple(map(str, range(k))) for k in self.cardinalities)

    @property
    def largest(self) -> np.ndarray:
        """[T] int32: the network that contains all others, as far as one does."""
        return np.asarray(self.widest or [k - 1 for k in self.cardinalities], np.int32)

    @property
    def size(self) -> int:
        """Number of decision vectors, before `canonical` merges any."""
        return int(np.prod(self.cardinalities, dtype=object))

    @property
    def identity(self) -> str:
        """All that tells the space from others, of the same name, too, as canonical JSON.

        Decisions mean the same in two spaces exactly when these texts are equal.
        """
        fields = ("name", "cardinalities", "names", "spec", *(("choices",) if self.choices else ()))
        return identity.text({field: getattr(self, field) for field in fields})

    @property
    def key(self) -> str:
        """Digest of `identity`: what histories and surrogates know the space by."""
        return identity.digest(self.identity)


def sample_uniform(cardinalities: tuple[int, ...], key: Array, n: int) -> Array:
    """[n, T] int32, every decision uniform and independent."""
    return jax.random.randint(key, (n, len(cardinalities)), 0, jnp.asarray(cardinalities))


def in_range(cardinalities: tuple[int, ...], archs: Array) -> Array:
    """[N] bool: every decision of [N, T] lies in 0..K_t-1."""
    chex.assert_shape(archs, (None, len(cardinalities)))
    return jnp.all((archs >= 0) & (archs < jnp.asarray(cardinalities)), axis=-1)


def fair_round(cardinalities: tuple[int, ...], key: Array) -> Array:
    """[L, T] int32: every choice of every decision equally often (FairNAS, arXiv 1907.01845).

    L is the least common multiple of the cardinalities; each decision goes through permutations of
    its choices, independently of the others.
    """
    length = math.lcm(*cardinalities)
    columns = [
        jax.random.permutation(jax.random.fold_in(key, t), jnp.arange(length) % k)
        for t, k in enumerate(cardinalities)
    ]
    return jnp.stack(columns, axis=1).astype(jnp.int32)


def place_values(cardinalities: tuple[int, ...]) -> np.ndarray:
    """[T] int32 w: `archs @ w` numbers decision vectors in lexicographic order, from 0."""
    cards = np.asarray(cardinalities)
    return np.append(np.cumprod(cards[:0:-1])[::-1], 1).astype(np.int32)


def distinct(space: Space, key: Array, draws: int) -> np.ndarray:
    """[n, T] the different networks among so many random ones, canonical, in the order drawn."""
    archs = np.asarray(space.canonical(space.sample(key, draws)))
    _, first = np.unique(archs, axis=0, return_index=True)
    return archs[np.sort(first)]


def one_hot(cardinalities: tuple[int, ...], archs: Array) -> Array:
    """[N, T] int32 -> [N, sum K_t] float32, the decisions' one-hot codes side by side."""
    chex.assert_shape(archs, (None, len(cardinalities)))
    decision = np.repeat(np.arange(len(cardinalities)), cardinalities)
    choice = np.concatenate([np.arange(k) for k in cardinalities])
    return (archs[:, decision] == choice).astype(jnp.float32)


def neighbours(cardinalities: tuple[int, ...], arch: Array) -> Array:
    """[T] -> [M, T] int32: all M = sum (K_t - 1) vectors that differ in exactly one decision."""
    chex.assert_shape(arch, (len(cardinalities),))
    decision = np.repeat(np.arange(len(cardinalities)), np.asarray(cardinalities) - 1)
    step = np.concatenate([np.arange(1, k) for k in cardinalities])
    moved = (arch[decision] + step) % jnp.asarray(cardinalities)[decision]
    rows = jnp.broadcast_to(arch, (len(decision), len(cardinalities)))
    return rows.at[np.arange(len(decision)), decision].set(moved.astype(jnp.int32))


def mutate(cardinalities: tuple[int, ...], key: Array, arch: Array) -> Array:
    """[T] -> [T] int32: one decision, drawn uniformly among those with a choice, changed.

    Where none has one, the architecture itself.
    """
    chex.assert_shape(arch, (len(cardinalities),))
    key_decision, key_step = jax.random.split(key)
    free = np.flatnonzero(np.asarray(cardinalities) > 1)
    if not len(free):
        return arch
    t = jax.random.choice(key_decision, jnp.asarray(free))
    k = jnp.asarray(cardinalities)[t]
    step = jax.random.randint(key_step, (), 1, k)
    return arch.at[t].set((arch[t] + step) % k)


def enumerate_all(space: Space, limit: int = 1_000_000) -> np.ndarray:
    """[space.size, T] int32 in lexicographic order. Raises ValueError above `limit`."""
    if space.size > limit:
        raise ValueError(f"{space.name} has {space.size} architectures; at most {limit} are listed")
    return np.array(list(itertools.product(*map(range, space.cardinalities))), np.int32)
