"""What winners are worth: trained again from fresh weights, judged on images no search has seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fnas_jax.tasks import data, images, trained
from fnas_jax.tasks.base import Task


def final_accuracy(
    config: ml_collections.ConfigDict, task: Task, archs: np.ndarray, steps: int
) -> np.ndarray:
    """[N] test accuracies of `archs` [N, T] after `steps` steps on all other images."""
    options = config.task
    found = data.load(
        options.name.partition("/")[2],
        options.data_dir,
        options.image_size,
        options.val_fraction,
        options.test_fraction,
        options.split_seed,
    )
    swapped = found._replace(
        train_images=np.concatenate([found.train_images, found.val_images]),
        train_labels=np.concatenate([found.train_labels, found.val_labels]),
        val_images=found.test_images,
        val_labels=found.test_labels,
    )
    longer = ml_collections.ConfigDict(config)
    with longer.unlocked():
        longer.children.steps = steps
        longer.akp.enabled = False
        longer.search.budget = len(archs)
    evaluator = trained.evaluator(images.train_context(longer, task.space, swapped))
    everyone = jnp.ones(len(archs), bool)
    _, metrics = evaluator.evaluate(
        evaluator.init(), jnp.asarray(archs), everyone, jax.random.key(0)
    )
    return np.asarray(metrics.accuracy)
