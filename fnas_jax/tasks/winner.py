"""The final training: the winner of a search and a reference network of equal cost, then a test.

Both are trained on training and validation images together, by one recipe; the test images serve
only here. Where several networks compete (`compare`), validation images judge them.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import limits
from fnas_jax.core.keep import NOWHERE, Keep
from fnas_jax.core.mapped import joined
from fnas_jax.core.types import Array
from fnas_jax.networks import cost as costs
from fnas_jax.networks import elastic, subnet_weights
from fnas_jax.networks.base import Network
from fnas_jax.tasks import entrants
from fnas_jax.tasks import recipe as recipes
from fnas_jax.tasks import reference as references
from fnas_jax.tasks.base import Judged, TrainedNetwork
from fnas_jax.tasks.context import TrainContext
from fnas_jax.tasks.entrants import Entrant, Examples, Tested
from fnas_jax.training.minibatches import Data

LOG = logging.getLogger(__name__)


def final(ctx: TrainContext, arch: Array, key: Array, keep: Keep = NOWHERE) -> Judged:
    """Trains the winner `arch` [T], in its canonical form, and the reference alike, and tests both.

    The reference (`tasks.reference`) costs about what the winner costs. Accuracies are None, and
    there is no network, where `winner.steps` is 0 or a training failed. `keep` has what was trained
    before.
    """
    arch = ctx.canonical(arch[None])[0]
    winner: dict[str, Any] = {
        "accuracy": None,
        **costs_of(ctx, arch),
        "seconds": 0.0,
        "measures": f"{ctx.objective.measure.name} on test images after training on all others",
    }
    check_latency(ctx, winner)
    if ctx.config.winner.steps == 0:
        return Judged(winner)
    jobs = [own_entrant(ctx, "winner", arch)]
    if ctx.config.winner.reference:
        winner["reference"] = references.facts(ctx, winner["mflops"])
        jobs.append(reference_entrant(ctx, "reference", winner["reference"]))
    tested = train_and_test(ctx, jobs, key, keep)
    winner |= tested[0].facts | {"recipe": dataclasses.asdict(recipes.of(ctx))}
    if ctx.config.winner.reference:
        winner["reference"] |= tested[1].facts
    return Judged(winner, trained_network(ctx, arch, tested[0], key))


def compare(
    ctx: TrainContext,
    archs: np.ndarray,
    key: Array,
    say: Callable[[str], object],
    keep: Keep = NOWHERE,
) -> list[dict[str, Any]]:
    """Trains K networks `archs` [K, T] as `final` does, but for validation images, which judge.

    Facts of each, as `final` has them; a reference of several is trained once. What is above a
    limit is not trained. `say` is told how far it is. Test images have no part in it.
    """
    forms = list(ctx.canonical(jnp.asarray(archs)))
    facts: list[dict[str, Any]] = [costs_of(ctx, arch) for arch in forms]
    within = [i for i, own in enumerate(facts) if not limits.above(ctx.limits, own)]
    jobs: dict[Any, Entrant] = {i: own_entrant(ctx, f"network {i + 1}", forms[i]) for i in within}
    if ctx.config.winner.reference:
        for i in within:
            facts[i]["reference"] = references.facts(ctx, facts[i]["mflops"])
        standards = {_width(facts[i]): facts[i]["reference"] for i in within}
        for n, width in enumerate(sorted(standards), start=1):
            jobs[width] = reference_entrant(ctx, f"reference {n}", standards[width])
    dataset, found = ctx.dataset, {}
    images = (dataset.train_images, dataset.train_labels, dataset.val_images, dataset.val_labels)
    trained = entrants.train(
        ctx, list(jobs.values()), Examples(Data(*images), "validation"), key, keep
    )
    for name, one in zip(jobs, trained, strict=True):
        found[name] = one.facts
        say(f"trained {len(found)} of {len(jobs)} networks that are compared")
    untrained = {"accuracy": None, "loss": None, "steps": 0, "seconds": 0.0}
    metric = ctx.objective.measure.name
    for i, own in enumerate(facts):
        own |= found.get(i, untrained)
        own["measures"] = f"{metric} on validation images after training on others"
        if "reference" in own:
            own["reference"] |= found[_width(own)]
    return facts


def _width(facts: dict[str, Any]) -> tuple[float, int]:
    """Which reference a network has."""
    return facts["reference"]["width"], facts["reference"]["multiple"]


def costs_of(ctx: TrainContext, arch: Array) -> dict[str, Any]:
    """What the network of `arch` [T] costs, its latency timed here.

    Beside it, what `latency.source` says of it where that is something else.
    """
    dataset = ctx.dataset
    params, macs = costs.one_cost(ctx.space, arch, dataset.image_shape, dataset.outputs)
    found: dict[str, Any] = {"mflops": macs / 1e6, "params_m": params / 1e6}
    found["latency_ms"] = ctx.latency_ms(arch)
    if ctx.latency.of is not None:
        found["latency_by_source"] = ctx.latency.described(arch)
    return found


def own_network(ctx: TrainContext, arch: Array) -> Network:
    """The network of `arch` [T] alone."""
    shape, classes = ctx.dataset.image_shape, ctx.dataset.outputs
    return elastic.fixed_network(ctx.space, arch, shape, classes, backend=ctx.settings.backend)


def own_entrant(ctx: TrainContext, name: str, arch: Array) -> Entrant:
    """The network of `arch` [T] alone, to be trained."""
    return Entrant(name, {"arch": np.asarray(arch).tolist()}, own_network(ctx, arch))


def reference_entrant(ctx: TrainContext, name: str, facts: dict[str, Any]) -> Entrant:
    """The reference of these `references.facts`, to be trained."""
    of = {field: facts[field] for field in ("arch", "width", "multiple")}
    return Entrant(name, of, references.network(ctx, facts["width"], facts["multiple"]))


def check_latency(ctx: TrainContext, facts: dict[str, Any]) -> None:
    """Says so where the winner of `costs_of` is above the limit that it kept before.

    By another source than the search's, or timed at the end.
    """
    limit, measured = ctx.limits.latency_ms, facts["latency_ms"]
    by_source = limits.in_force(facts)["latency_ms"]
    if limit and ctx.latency.of is not None and by_source > limit:
        LOG.warning(
            "the winner takes %.4g ms by %s, and limits.latency_ms is %g: the search went by"
            " another latency.source",
            *(by_source, ctx.latency.name, limit),
        )
    elif limit and measured > limit and ctx.latency.is_here:
        LOG.warning(
            "the winner takes %.4g ms on this device now, and limits.latency_ms is %g: by %s it was"
            " within; is the machine busy?",
            *(measured, limit, ctx.latency.name),
        )


def trained_network(
    ctx: TrainContext, arch: Array, tested: Tested, key: Array
) -> TrainedNetwork | None:
    """The winner `arch` [T] as plain Flax has it; None where its training failed."""
    accuracy = tested.facts["accuracy"]
    if accuracy is None:
        return None
    params, stats = jax.device_get((tested.trained.params, tested.trained.stats))
    return TrainedNetwork(
        arch=np.asarray(arch),
        variables=subnet_weights.of_fixed(ctx.space, np.asarray(arch), params, stats),
        accuracy=accuracy,
        recipe=recipes.described(ctx, "fresh", tested.facts["steps"], recipes.of(ctx)),
        objective=ctx.objective,
    )


def train_and_test(
    ctx: TrainContext, jobs: list[Entrant], key: Array, keep: Keep = NOWHERE
) -> list[Tested]:
    """Networks after `winner.steps` steps on all images but those of the test, which judge them."""
    dataset = ctx.dataset
    examples = Data(
        joined(dataset.train_images, dataset.val_images),
        np.concatenate([dataset.train_labels, dataset.val_labels]),
        dataset.test_images,
        dataset.test_labels,
    )
    return list(entrants.train(ctx, jobs, Examples(examples, "test"), key, keep))
