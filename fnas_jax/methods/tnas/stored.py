"""Meta-learnt weights in the knowledge store, under a hash of what they were learnt from."""

from __future__ import annotations

import hashlib
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Features
from fnas_jax.knowledge import surrogates
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.tnas import meta, networks, source_tasks
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.transfer import Transfer
from fnas_jax.spaces.base import Space


class Learnt(NamedTuple):
    """Weights with their tau on what was held out, as they are stored."""

    weights: Weights
    tau: Array


class Place(NamedTuple):
    """Where weights are stored, and what they look like."""

    path: pathlib.Path
    space: Space
    config: Tnas
    tasks: int  # learnt codes
    features: int  # numbers that describe an image


def place(
    config: Tnas, seed: int, space: Space, transfer: Transfer, knowledge: Knowledge | None
) -> Place | None:
    """Where the weights stand that are learnt from these rows with these settings and seed.

    None without a store that outlives the run.
    """
    if knowledge is None or knowledge.pool is None:
        return None
    name = digest(config, seed, transfer, space.features)
    path = surrogates.place(knowledge.pool.parent, space, name)
    return Place(path, space, config, source_tasks.codes_needed(transfer.source), transfer.features)


def digest(config: Tnas, seed: int, transfer: Transfer, features: Features | None = None) -> str:
    """The name of the weights that these settings learn from these rows and `Space.features`."""
    seen = hashlib.blake2b(digest_size=12)
    seen.update(source_tasks.digest(transfer.labels, transfer.source).encode())
    seen.update(settings(config, seed).encode())
    if features is not None:
        seen.update(features.identity.encode())
    return seen.hexdigest()


def settings(config: Tnas, seed: int) -> str:
    """All numbers that the weights depend on; another text would hide what stores hold already."""
    c = config
    net = (
        f"hidden={c.hidden}, code={c.code}, fusion={c.fusion}, film={c.film},"
        f" graph={c.graph_encoder}, data={c.data_encoder}, deep={c.deep}"
    )
    learning = (
        f"method={c.meta!r}, iterations={c.iterations}, tasks={c.tasks}, inner={c.inner},"
        f" batch={c.batch}, outer={c.outer}, lr={c.lr}, lr_hyper={c.lr_hyper}, checks={meta.CHECKS}"
    )
    return f"(Config({net}), Config({learning}), {c.features!r}, {c.images}, {seed})"


def load(place: Place | None) -> Weights | None:
    """The stored weights, or None. Raises UserError where they cannot be read."""
    if place is None:
        return None
    template = jax.eval_shape(
        lambda key: networks.init(key, place.space, place.config, place.tasks, place.features),
        jax.random.key(0),
    )
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), template)
    found = surrogates.load(place.path, Learnt(blank, jnp.float32(0)))
    return None if found is None else found.weights


def save(place: Place, weights: Weights, tau: float) -> None:
    """Stores weights for later searches; where some stand already, these stay."""
    surrogates.save(place.path, Learnt(weights, jnp.float32(tau)))
