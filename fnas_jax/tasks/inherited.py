"""Children judged with weights that one network for all of them has learnt; none is trained.

The statistics of a child's normalisations are estimated anew on training images, because those of
the other children are not its own. Children are judged, and the winner trained on, at the places
that they were asked for, because their canonical form may stand at places with other weights; it is
what is priced, reported and trained from fresh weights, as on all image tasks. After the search
the winner may be trained on from its inherited weights, and the best children's blocks enter the
knowledge pool.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from fnas_jax.core import devices, identity
from fnas_jax.core.mapped import joined
from fnas_jax.core.types import Array, UserError
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge.pool import Layout, Pool
from fnas_jax.layers import choose
from fnas_jax.layers.ops import Params
from fnas_jax.networks import subnet_weights
from fnas_jax.networks.base import Network
from fnas_jax.tasks import cache, children_evaluator, entrants, pool_access, protocols, trained
from fnas_jax.tasks import recipe as recipes
from fnas_jax.tasks.base import Apart, Evaluator, Hooks, Judged, OneShot, TrainedNetwork
from fnas_jax.tasks.cache import EvaluationCache
from fnas_jax.tasks.children_evaluator import State
from fnas_jax.tasks.context import Batch, TrainContext
from fnas_jax.tasks.ways import images_at_once
from fnas_jax.training import child, parallel
from fnas_jax.training.child import Outcome
from fnas_jax.training.config import Recipe
from fnas_jax.training.minibatches import Data

LOG = logging.getLogger(__name__)
LOG.setLevel(logging.INFO)  # devices that do nothing are told
DEPOSITED = 8  # best children whose blocks enter the pool
FINETUNE_DIVISOR = 10  # of the learning rate, because the weights are trained already
FINETUNED = "fine-tuned winner"  # as its training is shown and kept


def oneshot(ctx: TrainContext) -> OneShot:
    """What one-shot methods need of an image task."""
    dataset, mesh = ctx.dataset, devices.children_mesh(most=1)
    if images_at_once(ctx.settings.device_images, dataset, mesh) is not None:
        raise UserError(
            f"method.name is {ctx.config.method.name!r}, which needs all images on the device;"
            " task.image_size or children.device_images (0) would have to change"
        )
    network = trained.elastic_network(ctx)
    images = (dataset.train_images, dataset.train_labels, dataset.val_images, dataset.val_labels)
    data = Data(*map(jnp.asarray, images))
    return OneShot(
        network=network,
        pipeline=ctx.pipeline,
        objective=ctx.objective,
        settings=ctx.settings,
        data=data,
        vmap=_vmap(),
        cost=ctx.cost,
        start=functools.partial(start, ctx, network),
        evaluator=evaluator(ctx, network, data),
        mesh=supernet_mesh(ctx),
    )


def supernet_mesh(ctx: TrainContext) -> Mesh:
    """The devices of this host that train the network for all, each of which has all images.

    One, where that is too much for all of them.
    """
    size, count = ctx.settings.batch_size, len(ctx.dataset.train_labels)
    mesh = parallel.mesh_of(size, count)
    if images_at_once(ctx.settings.device_images, ctx.dataset, mesh) is not None:
        LOG.info("1 of %d devices trains: the images do not fit on each", mesh.size)
        return devices.children_mesh(jax.local_devices()[:1])
    parallel.tell(mesh, size, count)
    return mesh


def evaluator(ctx: TrainContext, network: Network, data: Data) -> Evaluator:
    """Judges what was not evaluated before with the weights that `load_weights` was given.

    These are the parameters of the elastic network, zeros until then. A fresh evaluation is one
    that was made now, although nothing was trained for it.
    """
    run = judging(child.Context(network, ctx.settings, ctx.pipeline, ctx.objective), _vmap())
    return children_evaluator.make(
        ctx,
        functools.partial(judge, run, data),
        functools.partial(initial, ctx, network),
        hooks=Hooks(
            apart=Apart(get=lambda state: state.learnt, put=load_weights),
            load_weights=load_weights,
            finalize=functools.partial(finalize, ctx, network),
        ),
        protocol=protocols.of_images(ctx, "inherited"),
    )


def initial(ctx: TrainContext, network: Network) -> Params:
    """Zeros in place of the weights that are to be inherited."""
    arch = jnp.zeros(len(ctx.space.cardinalities), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), arch)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def load_weights(state: State, params: Params) -> State:
    """The evaluator that judges with `params`."""
    return state._replace(learnt=params)


def judge(run: Any, data: Data, params: Params, batch: Batch, key: Array) -> tuple[Params, Outcome]:
    """Judges the new ones of `batch`; the weights stay as they are."""
    return params, jax.block_until_ready(run(params, data, batch.asked, batch.new))


def judging(ctx: child.Context, vmap: bool) -> Any:
    """The jitted function (params, data, archs [N, T], active [N]) -> Outcome of [N]."""
    return jax.jit(functools.partial(judge_all, ctx, vmap))


def judge_all(
    ctx: child.Context, vmap: bool, params: Params, data: Data, archs: Array, active: Array
) -> Outcome:
    """Outcomes of [N] architectures, at once (`vmap`) or one after another."""

    def one(item: tuple[Array, Array]) -> Outcome:
        return child.evaluate(ctx, data, item[0], params, item[1])[1]

    if vmap:
        return jax.vmap(lambda arch: one((arch, jnp.bool_(True))))(archs)
    return lax.map(one, (archs, active))


def finalize(ctx: TrainContext, network: Network, state: State, arch: Array, key: Array) -> Judged:
    """Leaves the best blocks to the pool; trains the winner on, where that is wanted."""
    leave_blocks(ctx, network, state)
    facts: dict[str, Any] = {"searched_by": "judged with inherited weights"}
    if not ctx.config.oneshot.finetune:
        return Judged(facts)
    tuned = finetune(ctx, network, state.learnt, arch, key)
    return Judged(facts | {"finetuned": tuned.facts}, tuned.network)


def finetune(
    ctx: TrainContext, network: Network, params: Params, arch: Array, key: Array
) -> Judged:
    """`arch` [T] trained on from its inherited weights on all images but the test's, and tested.

    In the form as asked, because its weights stand at the places that it names.
    """
    dataset, steps, asked = ctx.dataset, ctx.config.oneshot.finetune, np.asarray(arch)
    everything = Data(
        joined(dataset.train_images, dataset.val_images),
        np.concatenate([dataset.train_labels, dataset.val_labels]),
        dataset.test_images,
        dataset.test_labels,
    )
    settings = dataclasses.replace(ctx.settings, lr=ctx.settings.lr / FINETUNE_DIVISOR)
    mesh = parallel.mesh_of(settings.batch_size, len(everything.train_labels))
    chunk = entrants.at_once(ctx, mesh)
    trainee = child.Context(network, settings, ctx.pipeline, ctx.objective)
    own, compiled = parallel.make(trainee, mesh)
    placed = parallel.place(own, everything, chunk)
    run = entrants.Run(own, compiled, placed, key, steps, chunk, params, asked)
    of = described(ctx, params, asked, key, chunk)
    tested = entrants.tested(run, FINETUNED, of, ctx.keep)
    known = ("accuracy", "loss", "steps", "seconds")
    facts = {name: tested.facts[name] for name in known} | {
        "measures": f"{ctx.objective.measure.name} on test images of the inherited weights after"
        " some more training",
    }
    if facts["accuracy"] is None:
        return Judged(facts)
    tuned = jax.device_get((tested.trained.params, tested.trained.stats))
    variables = subnet_weights.get(ctx.space, asked, *tuned)
    plain = Recipe(smoothing=settings.label_smoothing)  # fine-tuning has none of `winner`'s
    recipe = recipes.described(ctx, "inherited", steps, plain, lr=settings.lr)
    return Judged(facts, TrainedNetwork(asked, variables, facts["accuracy"], recipe, ctx.objective))


def described(
    ctx: TrainContext, params: Params, asked: np.ndarray, key: Array, chunk: int | None
) -> str:
    """What a fine-tuning is of: equal texts, equal numbers at every step on as many devices."""
    return identity.text(
        {
            "weights": identity.of_arrays(params),
            "asked": asked.tolist(),
            "space": ctx.space.key,
            "children": protocols.of_images(ctx, "inherited"),
            # The order of the vector of parameters is the backend's.
            "backend": choose.candidates(ctx.settings.backend)[0],
            "divisor": FINETUNE_DIVISOR,
            "steps": ctx.config.oneshot.finetune,
            "chunk": chunk,
            "key": np.asarray(jax.random.key_data(key)).tolist(),
        }
    )


def start(ctx: TrainContext, network: Network, fresh: Params) -> Params:
    """`fresh`, or the pool's blocks where other runs have left trained ones."""
    access = pool_access.open_(ctx, network)
    if access is None or access.store is None:
        return fresh
    pool, _ = pool_access.load(access)
    if not pools.is_trained(pool):
        return fresh
    largest = jnp.asarray(ctx.space.largest)  # contains all others
    find, inherit = (
        jax.jit(functools.partial(step, access.layout)) for step in (pools.find, pools.inherit)
    )
    entry = find(pool, ctx.canonical(largest[None])).entry[0]
    return inherit(pool, largest, entry)


def leave_blocks(ctx: TrainContext, network: Network, state: State) -> None:
    """Puts the blocks of the best judged children into the pool on disk.

    Doing it twice, after a kill, does no harm: what is loaded is without the run's own blocks.
    """
    access = pool_access.open_(ctx, network)
    if access is None or access.store is None:
        return
    pool, seen = pool_access.load(access)
    add = jax.jit(functools.partial(deposit, access.layout))
    owner = np.uint32(access.store.owner)
    learnt = add(pool, state.learnt, best_of(state.cache), owner)
    stores.sync(access.store, access.layout, learnt, seen)


def best_of(cached: EvaluationCache) -> tuple[Array, Array, Array]:
    """(canonical [M, T], accuracy [M], ok [M]) of the `DEPOSITED` children of highest reward."""
    known = jax.device_get(cached)
    order, good = (x[:DEPOSITED] for x in cache.best_first(known))
    # Places without a child hold -1.
    archs = jnp.asarray(np.maximum(known.canonical[order], 0))
    return archs, jnp.asarray(known.metrics.accuracy[order]), jnp.asarray(good)


def deposit(
    layout: Layout, pool: Pool, params: Params, best: tuple[Array, Array, Array], owner: Array
) -> Pool:
    """The pool with the blocks of the children `best`, which all have the parameters `params`."""
    archs, accuracy, use = best
    many = jax.tree.map(lambda p: jnp.broadcast_to(p, (len(archs), *p.shape)), params)
    learnt = pools.deposit(layout, pool, archs, many, accuracy, use, owner)
    return pools.tally(layout, learnt, archs, use)


def _vmap() -> bool:
    """Networks at once (accelerators), or one after another."""
    return jax.default_backend() != "cpu"
