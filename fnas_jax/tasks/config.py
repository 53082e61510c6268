"""The sections `task`, `task.augment` and `winner`: what architectures are judged on, and how."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax import objectives
from fnas_jax.core.config import key
from fnas_jax.core.measure import DIRECTIONS
from fnas_jax.tasks.readers.decode import ALPHAS
from fnas_jax.tasks.table_costs import WAYS
from fnas_jax.training.config import Recipe


@dataclass(frozen=True)
class Task:
    """The task and its data."""

    name: str = key(
        "images/digits",
        "images/<digits|mnist5k|fashion_mnist|tfds:NAME|file|folder> (docs/data.md)"
        " or tabular/<macro|nats_cifar10|nats_cifar100|.csv>",
    )
    data_dir: str = key("", "folder of the tables, or of TFDS")
    image_size: int = key(0, "height and width that images are resized to; 0: as they are", 0, 512)
    val_fraction: float = key(0.2, "share of the images that the search is judged on", 0.01, 0.8)
    test_fraction: float = key(0.2, "share of the images kept for the winner's test", 0.01, 0.8)
    labels: str = key(
        "", "file of labels: .csv beside a folder of images, .npy beside one of images; '': none"
    )
    cache_dir: str = key(
        "~/.cache/fnas_jax/images", "folder that keeps decoded images of large folders; '': none"
    )
    alpha: str = key(
        "white",
        "what transparent images are composited on; keep: transparency is a channel of its own",
        choices=ALPHAS,
    )
    split_seed: int = key(0, "seed of the split into train, validation and test", 0, 2**31 - 1)
    noisy: bool = key(True, "tabular/macro: a query sees one of three trainings, not their mean")
    metric: str = key(
        "",
        "what the search is about: of images, a metric of task.objective ('': its own default);"
        " of csv tables, the column ('': the only one)",
    )
    objective: str = key(
        objectives.DEFAULT,
        "images: what networks are trained for, and so what labels are",
        choices=tuple(objectives.OBJECTIVES),
    )
    class_weights: str = key(
        "none",
        "images: balanced lets rare classes count more in the loss of training, by one over their"
        " share",
        choices=("none", "balanced"),
    )
    direction: str = key(
        "",
        "csv tables: which way the metric is better, maximize or minimize; '': maximize, and of"
        " what is named like a loss or a cost it is asked for",
        choices=("", *DIRECTIONS),
    )
    decisions: tuple[str, ...] = key(
        (),
        "csv tables: columns that are decisions, e.g. op,kernel; (): those named decision_..",
        texts=True,
    )
    time: str = key(
        "",
        "csv tables: column of the seconds that each training took, which searches add up;"
        " '': train_seconds, where there is one",
    )
    missing_costs: str = key(
        "leave_out",
        "csv tables: what becomes of rows without a cost that the reward or a limit needs",
        choices=WAYS,
    )


@dataclass(frozen=True)
class Augment:
    """What is done to training images; of children, and of the winner."""

    policy: str = key(
        "none",
        "chooses values of the keys below that are not given; auto: by the kind of the images",
        choices=("none", "basic", "auto", "randaugment"),
    )
    off: str = key("", "what the policy leaves out: flip, crop, colour, with commas between")
    flip: bool = key(False, "mirror training images left to right, half of the time")
    crop: int = key(0, "pixels of padding of which training images are cut again", 0, 64)
    cutout: int = key(0, "side of the square blanked out of training images", 0, 256)
    brightness: float = key(0.0, "most that is added to pixels of 0 to 1, or taken", 0.0, 1.0)
    contrast: float = key(0.0, "most that contrast changes, relative to what it is", 0.0, 1.0)
    saturation: float = key(0.0, "the same of saturation; images of three channels", 0.0, 1.0)
    hue: float = key(0.0, "most that hues turn; 0.5: to the opposite; three channels", 0.0, 0.5)
    layers: int = key(Recipe.policy_layers, "of randaugment: operations on an image", 1, 10)
    magnitude: int = key(
        Recipe.policy_magnitude, "of randaugment: how much they change it; 30: most", 1, 30
    )


@dataclass(frozen=True)
class Winner(Recipe):
    """How the winner is named, and its final training."""

    finalists: int = key(
        8,
        "best architectures that are trained again, on equal terms, before the winner is named;"
        " 0 or 1: the first readings decide, as always where no pool teaches the children",
        0,
        10**6,
    )
    steps: int = key(1500, "steps of the winner's final training; 0: none", 0, 10**8)
    reference: bool = key(True, "train the reference network beside the winner")
