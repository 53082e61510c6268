"""A winner with a layer of the user's own is kept, loaded, and exported as source."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import fnas_jax
from fnas_jax import registry
from fnas_jax.core.logging import write_json
from fnas_jax.ship import winner as ship
from tests.layers import own_layers
from tests.ship import winners
from tests.ship.test_export import imported, run


@pytest.mark.slow
def test_it_is_the_same_network_in_each_default_format(data_file, tmp_path, monkeypatch):
    config = winners.config_of("macro", data_file)
    config.space.update({"name": "tests.layers.own_layers:space", "width": 1.0})
    task = registry.build_task(config)
    assert task.space.key == own_layers.space.key
    judged = task.final(jnp.asarray([0, 0]), random.key(0))
    ship.keep(tmp_path, ship.Winner(config, task, judged, 0.5, "main"), pytest.fail)
    write_json(tmp_path / "config.json", config.to_dict())
    model = fnas_jax.load(tmp_path)
    assert model.architecture["layers"][1]["module"] == "tests.layers.own_layers:Ghost"
    assert run(tmp_path, tmp_path / "out") == 0  # judged by the test images; without ONNX
    images, _ = winners.images(30)
    labels, probabilities = model.predict(images)
    source = (tmp_path / "out" / "flax" / "model.py").read_text()
    assert "fnas_jax." not in source and "class Ghost(nn.Module)" in source
    found = imported(tmp_path / "out" / "flax" / "model.py", monkeypatch).load()(images)
    np.testing.assert_array_equal(found[0], labels)
    np.testing.assert_allclose(found[1], probabilities, atol=1e-5)
