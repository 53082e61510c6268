"""Masks: one-shot methods train a network for all architectures that answers for every pixel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import loop, registry
from fnas_jax.methods.pgnas import build as pgnas
from fnas_jax.methods.pgnas import method
from tests.methods.oneshot.digits import configuration, lines
from tests.test_segmentation import SIDE, boxes


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    images, masks = boxes(90, 0)
    masks[:, 0, 0] = 255
    path = tmp_path_factory.mktemp("masks") / "boxes.npz"
    np.savez(path, images=images, masks=masks)
    return path


def config_of(file, method, **keys):
    given = {"task.name": f"images/{file}", "task.objective": "segmentation"}
    small = {"oneshot.steps": 60, "oneshot.every": 30, "search.budget": 4, "search.batch": 2}
    return configuration(method, **given | small | keys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pgnas", "spos"])
def test_a_search_learns_the_boxes(file, tmp_path, name):
    """Mean IoU of background alone is below a third."""
    result = loop.run(config_of(file, name), tmp_path)
    training = [m["nll"] for m in lines(tmp_path) if m.get("stage") == "prepare"]
    assert len(training) == 2 and training[1] < training[0]
    assert result["best"]["accuracy"] > 0.4
    assert result["counts"]["trained"] == 4 and not result["counts"]["failed"]


@pytest.mark.parametrize(
    ("space", "gradient"), [("macro", "concrete"), ("macro", "second"), ("cell", "local")]
)
def test_gradients_of_other_spaces_have_a_loss_of_pixels(file, space, gradient):
    """Traced, which finds numbers that do not fit each other, and not compiled."""
    sizes = {"space.name": space, "space.cell_channels": 4, "pgnas.gradient": gradient}
    config = config_of(file, "pgnas", **sizes)
    task = registry.build_task(config)
    parts = task.oneshot()
    ctx = pgnas.context(config, pgnas.configure(config, task.space, parts), task.space, parts, 4)
    key = jax.random.key(0)
    state = jax.eval_shape(functools.partial(method.init, ctx), key)
    images = jax.ShapeDtypeStruct((8, SIDE, SIDE, 1), jnp.float32)
    masks = jax.ShapeDtypeStruct((8, SIDE, SIDE), jnp.uint8)
    after, scalars = jax.eval_shape(functools.partial(method.train, ctx), state, images, masks, key)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert scalars["nll"].shape == ()
