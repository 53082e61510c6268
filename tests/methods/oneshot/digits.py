"""A small one-shot search on real images, shared by the tests of one-shot methods."""

import json

from fnas_jax.core.config import default

STEPS, EVERY, BUDGET = 240, 120, 6


def configuration(method, **keys):
    """The smallest network of the MNAS space on images of digits."""
    config = default()
    config.task.name = "images/digits"
    config.space.blocks = 1
    config.space.strides = (2,)
    config.space.stem = 16
    config.space.stem_stride = 1
    config.space.head = 64
    config.children.batch_size = 32
    config.method.name = method
    config.oneshot.steps = STEPS
    config.oneshot.every = EVERY
    config.oneshot.finetune = 0
    config.search.budget = BUDGET
    config.search.batch = 3
    config.winner.steps = 0
    config.jax.cache_dir = ""
    config.log.checkpoint_seconds = 0.0
    config.log.tensorboard = False
    config.update_from_flattened_dict(keys)
    return config


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]
