"""The architecture knowledge pool of FNAS (arXiv 2105.11694): blocks that children start from.

A network has S places for blocks. For each the pool holds up to M trained blocks; a child inherits
at every place the most similar one there is, and leaves its own trained block behind. Everything
here is a pure function of fixed shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.knowledge import pool_entries, weight_transfer
from fnas_jax.knowledge.pool_entries import Entries
from fnas_jax.knowledge.similarity import cosine
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Network, Parts
from fnas_jax.spaces.base import Space


class Layout(NamedTuple):
    """What a pool is a pool of; nothing that changes."""

    network: Network
    parts: Parts  # of the network
    describe: Callable[[Array], Array]  # canonical archs [N, T] -> descriptors [N, S, F]
    cardinalities: tuple[int, ...]
    largest: np.ndarray  # [T] int32, `Space.largest`
    weights: Array  # [F] of the descriptors' entries
    unravel: tuple[Callable[[Array], Params], ...]  # [P] -> block, for each place


class Pool(NamedTuple):
    """What was learnt of a space's weights."""

    blocks: tuple[Entries, ...]  # S
    shared: Params  # stem, head, classifier
    counts: Array  # [sum K_t] int32 children trained with each choice of each decision


class Source(NamedTuple):
    """Where N children find their blocks."""

    entry: Array  # [N, S] int32 at each place
    similarity: Array  # [N, S] float32 in [0, 1]
    hit: Array  # [N, S] bool: there was an entry


def make_layout(network: Network, space: Space, weights: Any = None) -> Layout:
    """The pool of `space`'s elastic `network`; `weights` [F] of descriptors, by default ones."""
    assert network.parts is not None
    # Traced once, and not for every place at which it is asked.
    parts = network.parts._replace(used=jax.jit(network.parts.used))
    arch = jnp.zeros(len(space.cardinalities), jnp.int32)
    features = jax.eval_shape(space.blocks, arch[None]).shape[-1]
    weights = jnp.ones(features) if weights is None else jnp.asarray(weights, jnp.float32)
    chex.assert_shape(weights, (features,))
    unravel: list[Any] = []

    def note(key: Array) -> None:
        """Ravels every block, of which only the way back is wanted: nothing has to be computed."""
        blocks = parts.split(network.init(key, arch))[0]
        unravel.extend(jax.flatten_util.ravel_pytree(block)[1] for block in blocks)

    jax.eval_shape(note, jax.random.key(0))
    sizes = space.cardinalities, space.largest
    return Layout(network, parts, space.blocks, *sizes, weights, tuple(unravel))


def entry_bytes(layout: Layout) -> int:
    """Bytes of the parameters of one entry at each place."""
    key, arch = jax.random.key(0), jnp.zeros(len(layout.cardinalities), jnp.int32)
    blocks = jax.eval_shape(lambda: layout.parts.split(layout.network.init(key, arch))[0])
    return size_bytes(blocks)


def init(layout: Layout, capacity: int, key: Array) -> Pool:
    """A pool of `capacity` entries a place, the first of them a fresh block of maximal size."""
    largest = jnp.asarray(layout.largest)
    blocks, shared = layout.parts.split(layout.network.init(key, largest))
    descriptors = layout.describe(largest[None])[0]
    first = jnp.arange(capacity) == 0
    zeros = jnp.zeros(capacity, jnp.int32)

    def fresh(block: Params, descriptor: Array) -> Entries:
        return Entries(
            params=first[:, None] * _ravel(block),
            arch=jnp.full((capacity, len(largest)), -1, jnp.int32),
            descriptor=first[:, None] * descriptor,
            size=zeros,
            updates=zeros,
            accuracy=jnp.zeros(capacity, jnp.float32),
            owner=jnp.zeros(capacity, jnp.uint32),
            valid=first,
        )

    places = tuple(fresh(*item) for item in zip(blocks, descriptors, strict=True))
    return Pool(places, shared, jnp.zeros(sum(layout.cardinalities), jnp.int32))


def find(layout: Layout, pool: Pool, archs: Array) -> Source:
    """The most similar entry for every block of the canonical `archs` [N, T].

    Of equally similar ones that of the same size is taken, then the one updated most often.
    """
    chex.assert_rank(archs, 2)
    descriptors, sizes = layout.describe(archs), _sizes(layout, archs)
    found = []
    for s, entries in enumerate(pool.blocks):
        similarity = cosine(descriptors[:, s], entries.descriptor, layout.weights)
        similarity = jnp.where(entries.valid, similarity, -1.0)
        best = similarity.max(axis=1)
        fits = jnp.where(sizes[:, s, None] == entries.size, 2**30, 0)
        order = fits + jnp.minimum(entries.updates, 2**29)
        index = jnp.argmax(jnp.where(similarity >= best[:, None], order, -1), axis=1)
        found.append((index.astype(jnp.int32), best, best >= 0))
    return Source(*(jnp.stack(x, axis=1) for x in zip(*found, strict=True)))


def inherit(layout: Layout, pool: Pool, arch: Array, entry: Array) -> Params:
    """Parameters that the child `arch` [T] starts from, its blocks the entries `entry` [S]."""
    chex.assert_shape(entry, (len(pool.blocks),))
    bypassed, blocks = layout.parts.bypassed(arch), []
    for s, entries in enumerate(pool.blocks):
        source = entries.arch[entry[s]]
        fresh = source[0] < 0
        trained = _used(layout, jnp.maximum(source, 0))[0][s]
        trained = jax.tree.map(lambda mask, fresh=fresh: mask | fresh, trained)
        params = layout.unravel[s](entries.params[entry[s]])
        blocks.append(weight_transfer.expand(params, trained, bypassed[s]))
    return layout.parts.join(blocks, pool.shared)


def deposit(
    layout: Layout,
    pool: Pool,
    archs: Array,
    params: Params,
    accuracy: Array,
    use: Array,
    owner: Array | int,
) -> Pool:
    """The pool with the blocks of the children `archs` [N, T], canonical, that are of `use` [N].

    `params` [N, ..] are the trained ones, `accuracy` [N], `owner` [] uint32 the run. A block that
    several children trained enters as their average, so that none of them counts for more than the
    others (strict fairness, arXiv 1907.01845).
    """
    chex.assert_rank([archs, accuracy, use], [2, 1, 1])
    chex.assert_equal_shape_prefix([archs, accuracy, use], 1)
    n, descriptors, sizes = len(archs), layout.describe(archs), _sizes(layout, archs)
    blocks, shared = jax.vmap(layout.parts.split)(params)
    used, shared_used = jax.vmap(lambda arch: _used(layout, arch))(archs)
    places = []
    for s, entries in enumerate(pool.blocks):
        same = jnp.all(descriptors[:, None, s] == descriptors[:, s], axis=-1)
        same &= (sizes[:, None, s] == sizes[:, s]) & use & use[:, None]
        first = use & (same.argmax(axis=1) == jnp.arange(n))
        share = same / jnp.maximum(same.sum(axis=1, keepdims=True), 1)
        # A failed child's numbers, times zero, would still be no numbers.
        known = jnp.where(use[:, None], jax.vmap(_ravel)(blocks[s]), 0.0)
        means = jax.vmap(layout.unravel[s])(share @ known)
        news = Entries(
            params=jax.vmap(lambda p, u: _ravel(weight_transfer.sort_channels(p, u)))(
                means, used[s]
            ),
            arch=archs,
            descriptor=descriptors[:, s],
            size=sizes[:, s],
            updates=same.sum(axis=1, dtype=jnp.int32),
            accuracy=share @ jnp.where(use, accuracy, 0.0),
            owner=jnp.full(n, owner, jnp.uint32),
            valid=first & (sizes[:, s] > 0),
        )
        places.append(pool_entries.insert(entries, news, layout.weights, add=True))

    def mean(old: Array, values: Array, masks: Array) -> Array:
        masks = masks & use.reshape(-1, *(1,) * (masks.ndim - 1))
        count = masks.sum(axis=0)
        total = jnp.where(masks, values, 0).sum(axis=0)
        return jnp.where(count > 0, total / jnp.maximum(count, 1), old)

    shared = jax.tree.map(mean, pool.shared, shared, shared_used)
    return pool._replace(blocks=tuple(places), shared=shared)


def tally(layout: Layout, pool: Pool, archs: Array, use: Array) -> Pool:
    """The pool that counts the children `archs` [N, T] of `use` [N] as trained.

    Apart from `deposit`, because decisions without effect count too, and networks are deposited in
    their canonical form.
    """
    starts = np.cumsum((0, *layout.cardinalities[:-1]))
    counts = pool.counts.at[archs + jnp.asarray(starts)].add(use[:, None].astype(jnp.int32))
    return pool._replace(counts=counts)


def merge(layout: Layout, mine: Pool, theirs: Pool, owner: Array | int) -> Pool:
    """`mine` with the blocks of `theirs` that others than the run `owner` trained.

    Of a block that both have, the one updated more often stays; so merging twice changes nothing.
    """
    places = []
    for a, b in zip(mine.blocks, theirs.blocks, strict=True):
        foreign = b.valid & (b.owner != jnp.uint32(owner)) & (b.updates > 0)
        places.append(pool_entries.insert(a, b._replace(valid=foreign), layout.weights, add=False))
    return mine._replace(blocks=tuple(places))


def without(pool: Pool, owner: Array | int) -> Pool:
    """The pool without the blocks that the run `owner` was the last to train."""
    return pool._replace(
        blocks=tuple(
            entries._replace(
                valid=entries.valid
                & ((entries.updates == 0) | (entries.owner != jnp.uint32(owner)))
            )
            for entries in pool.blocks
        )
    )


def resize(pool: Pool, capacity: int) -> Pool:
    """The pool with another number of entries a place, on the host."""
    return pool._replace(
        blocks=tuple(pool_entries.resize(entries, capacity) for entries in pool.blocks)
    )


def statistics(layout: Layout, pool: Pool, source: Source, use: Array) -> dict[str, Array]:
    """What is logged of an iteration whose children of `use` [N] found their blocks in `source`."""

    def share(x: Array) -> Array:
        mean = jnp.sum(jnp.where(use[:, None], x, 0.0)) / (use.sum() * x.shape[1])
        return jnp.where(use.any(), mean, jnp.nan)

    return {
        "pool/hits": share(source.hit),
        "pool/similarity": share(source.similarity),
        "pool/exact": share(source.similarity == 1.0),
        "pool/entries": jnp.float32(sum(entries.valid.sum() for entries in pool.blocks)),
        "pool/count_range": count_range(layout, pool),
        "pool/mib": jnp.float32(size_bytes(pool) / 2**20),
    }


def no_statistics(layout: Layout, pool: Pool) -> dict[str, Array]:
    """Zeros under the names of `statistics`, before there are any."""
    places = jnp.asarray(np.zeros((1, len(pool.blocks)), np.float32))
    source, use = Source(places, places, places), jnp.asarray([True])
    names = jax.eval_shape(functools.partial(statistics, layout), pool, source, use)
    return dict.fromkeys(names, jnp.float32(0))


def is_trained(pool: Pool) -> bool:
    """Whether any block has been trained."""
    return any(bool((entries.updates > 0).any()) for entries in pool.blocks)


def count_range(layout: Layout, pool: Pool) -> Array:
    """[] float32: the largest difference of trained children between choices of a decision."""
    parts = jnp.split(pool.counts, np.cumsum(layout.cardinalities)[:-1])
    return jnp.max(jnp.stack([part.max() - part.min() for part in parts])).astype(jnp.float32)


def size_bytes(tree: Any) -> int:
    """Bytes of all arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _ravel(block: Params) -> Array:
    return jax.flatten_util.ravel_pytree(block)[0]


def _used(layout: Layout, arch: Array) -> tuple[list[Params], Params]:
    """What the child `arch` [T] uses of each block, and of the shared parts."""
    return layout.parts.split(layout.parts.used(arch))


def _sizes(layout: Layout, archs: Array) -> Array:
    """[N, S] int32: parameters that each block of `archs` uses."""

    def of(arch: Array) -> Array:
        blocks = _used(layout, arch)[0]
        return jnp.stack([sum(m.sum(dtype=jnp.int32) for m in jax.tree.leaves(b)) for b in blocks])

    return jax.vmap(of)(archs)
