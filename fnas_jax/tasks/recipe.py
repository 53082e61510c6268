"""The recipe of the final training, by the configuration: for training, and for those who ask."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.tasks import augment_choice, policy, protocols
from fnas_jax.tasks.config import Winner
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training.config import Children, Recipe
from fnas_jax.training.minibatches import Pipeline


def of(ctx: TrainContext) -> Recipe:
    """What `winner.*` adds to the training of children, with smoothing and rate that count."""
    winner = config_lib.read(Winner, ctx.config.winner)
    names = [field.name for field in dataclasses.fields(Recipe)]
    chosen = Recipe(**{name: getattr(winner, name) for name in names})
    own = ctx.settings
    smoothing = own.label_smoothing if chosen.smoothing < 0 else chosen.smoothing
    return dataclasses.replace(chosen, smoothing=smoothing, lr=chosen.lr or own.lr)


def check(ctx: TrainContext) -> None:
    """Raises UserError where the objective cannot be trained by what the configuration asks for."""
    objective, added = ctx.objective, of(ctx)
    if added.policy == ctx.config.task.augment.policy == "randaugment":
        raise UserError(
            "winner.policy=randaugment comes on top of what children get, and"
            " task.augment.policy=randaugment gives it to them: one of the two is enough"
        )
    for name in ("mixup", "cutmix"):
        if getattr(added, name) and name not in objective.mixes:
            able = ", ".join(objective.mixes) or "none"
            raise UserError(
                f"winner.{name} is {getattr(added, name):g}, and images with targets of"
                f" task.objective={objective.name} cannot be mixed so (only by: {able})"
            )
    keys = {"children.label_smoothing": ctx.settings.label_smoothing}
    keys["winner.smoothing"] = added.smoothing
    for key, value in keys.items():
        if value > 0 and not objective.smooths:
            raise UserError(
                f"{key} is {value:g}, and targets of task.objective={objective.name} are no labels"
                " that could be smoothed"
            )


def settings(ctx: TrainContext) -> Children:
    """The settings of the final training."""
    added = of(ctx)
    return dataclasses.replace(ctx.settings, label_smoothing=added.smoothing, lr=added.lr)


def pipeline(ctx: TrainContext) -> Pipeline:
    """What becomes of images in the final training: the policy first, then what children get."""
    own = policy.make(of(ctx), ctx.dataset)
    if own is None:
        return ctx.pipeline
    return ctx.pipeline._replace(
        augment=functools.partial(augment_choice.in_turn, (own, ctx.pipeline.augment))
    )


def described(
    ctx: TrainContext, weights: str, steps: int, added: Recipe, **changed: Any
) -> dict[str, Any]:
    """How a winner was trained for `steps`, from `weights`: "fresh" or "inherited"; JSON-ready.

    `added` is what it had beside the training of children; `changed` are settings other than
    theirs.
    """
    rate = {"lr": added.lr or ctx.settings.lr}
    changed = rate | changed | {"label_smoothing": added.smoothing}
    used = dataclasses.asdict(dataclasses.replace(ctx.settings, **changed))
    left_out = (*protocols.SPEED, *protocols.HALVING, "steps")
    return {
        "weights": weights,
        "steps": steps,
        "images": "training and validation images",
        "optimizer": "SGD with Nesterov momentum, cosine decay after a linear warm-up",
        **{name: value for name, value in used.items() if name not in left_out},
        "augment": augment_choice.described(ctx.augment),
        "recipe": dataclasses.asdict(added),
        "seed": ctx.config.seed,
        "backend": ctx.settings.backend,
    }
