"""The sections `task` and `task.augment`: what architectures are judged on."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key


@dataclass(frozen=True)
class Task:
    """The task and its data."""

    name: str = key(
        "images/digits",
        "images/<digits|mnist5k|tfds:NAME|.npz|folder>"
        " or tabular/<macro|nats_cifar10|nats_cifar100|.csv>",
    )
    data_dir: str = key("", "folder of the tables, or of TFDS")
    image_size: int = key(0, "height and width that images are resized to; 0: as they are", 0, 512)
    val_fraction: float = key(0.2, "share of the images that the search is judged on", 0.01, 0.8)
    test_fraction: float = key(0.2, "share of the images kept for the winner's test", 0.01, 0.8)
    split_seed: int = key(0, "seed of the split into train, validation and test", 0, 2**31 - 1)
    noisy: bool = key(True, "tabular/macro: a query sees one of three trainings, not their mean")
    metric: str = key("", "csv tables: column to maximise; '' for the first metric")


@dataclass(frozen=True)
class Augment:
    """What is done to training images."""

    flip: bool = key(False, "mirror training images left to right, half of the time")
    crop: int = key(0, "pixels of padding of which training images are cut again", 0, 64)
    cutout: int = key(0, "side of the square blanked out of training images", 0, 256)
