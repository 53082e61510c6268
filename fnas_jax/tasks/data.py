"""Image sets by name, divided into training, validation and test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import chex
import numpy as np

from fnas_jax import objectives
from fnas_jax.core.identity import ARRAYS
from fnas_jax.core.mapped import Images as Pixels
from fnas_jax.core.mapped import Mapped, chunks, extent, in_file_order, take
from fnas_jax.core.types import UserError
from fnas_jax.knowledge.taught import Images
from fnas_jax.networks import dense
from fnas_jax.networks.dense import Outputs
from fnas_jax.tasks import facts
from fnas_jax.tasks.readers import decode, named, targets
from fnas_jax.tasks.readers.decode import Files
from fnas_jax.tasks.readers.examples import Note, Part
from fnas_jax.tasks.readers.npz import fingerprint, read_arrays
from fnas_jax.tasks.split import split


class Dataset(NamedTuple):
    """Images [n, H, W, C], uint8 as stored or float32, and their targets, as `Part.labels`.

    Images of large files are `Mapped`, read when asked for.
    No two parts share an image, but for what the source itself has in two of its own. `mean` and
    `std` are in the units of the images.
    """

    name: str
    train_images: Pixels
    train_labels: np.ndarray
    val_images: Pixels
    val_labels: np.ndarray
    test_images: Pixels
    test_labels: np.ndarray
    num_classes: int  # or labels or values of an image: what a network gives numbers for
    mean: np.ndarray  # [C] float32, of the training images
    std: np.ndarray  # [C] float32, of the training images; 1 where a channel is constant
    class_names: tuple[str, ...]  # num_classes texts
    names: Images = Images()  # of the images, by their native pixels; `taught` says what for
    files: Files = Files()  # how image files become such pixels
    notes: tuple[Note, ...] = ()  # what the set is, and what is doubtful about it
    objective: str = objectives.DEFAULT  # that the labels are for

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels

    @property
    def outputs(self) -> Outputs:
        """What a network says: of each image, or of each pixel where the labels are masks."""
        return dense.of(self.num_classes, self.train_labels.ndim == 3)


def load(
    name: str,
    data_dir: str = "",
    image_size: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    alpha: str = Files().alpha,
    labels: str = "",
    cache: str = "",
    arrays: Mapping[str, np.ndarray] | None = None,
    objective: str = objectives.DEFAULT,
) -> Dataset:
    """Reads an image set and divides it.

    A test set that the source brings is kept as it is, and so is a validation set beside it; a
    single held-out set is the test set whatever its name (ImageNet's "validation" is what figures
    are published on), unless it was given as validation `arrays`. What is missing is split off
    from the training images, of classes the same share of each, and equal images stay together
    (`split`). The split depends on the images and `split_seed` only: not on their order in files,
    nor on `image_size`.

    Args:
      name: one that `readers.named` knows, or that of `arrays`.
      data_dir: folder of the prepared TFDS sets; "" is TFDS's own default.
      image_size: side in pixels of the square that images are resized to; 0 keeps them.
      val_fraction: share of the training images that become validation images.
      test_fraction: the same for test images.
      split_seed: another seed, another split.
      labels: file of the labels, for folders of images without class folders and for .npy files.
      cache: folder that keeps the decoded images of large folders; "": none.
      alpha: what becomes of transparency in image files, "white", "black" or "keep" (`Files`).
      arrays: an image set in memory, by the names of an .npz file (`readers.npz`).
      objective: what its labels are for, as `task.objective`.

    Raises:
      UserError: unknown name or `alpha`, missing or unreadable data, labels that are out of range
        or for another objective, or a class with too few examples.
    """
    decode.check(alpha)
    if arrays is not None or name.startswith(ARRAYS):
        given = _the_same(name, arrays)
        source = read_arrays(given, "the data set in memory", image_size, objective)
    else:
        source = named.read(name, data_dir, image_size, alpha, objective, labels, cache)
    if source.objective != objective:
        raise UserError(
            f"{name} has labels for task.objective={source.objective}, and task.objective is"
            f" {objective!r}."
        )
    train, val, test = source.train, source.val, source.test
    if test is None and val is not None and arrays is None:
        val, test = None, val
    brought = {"train": train, "val": val, "test": test}
    present = {part: of for part, of in brought.items() if of is not None}
    _check(present, source.class_names, name, objective)
    doubts = facts.look(present, source.class_names, name)
    shares = _shares(test_fraction, val_fraction, test is None, val is None)
    (test_rows, val_rows, train_rows), few = split(
        *(train.ids, shares, split_seed, name),
        *((train.labels, source.class_names) if objective == objectives.DEFAULT else ()),
    )
    test = _rows(train, test_rows) if test is None else test
    val = _rows(train, val_rows) if val is None else val
    train = _rows(train, train_rows)
    if objective == "regression":
        targets.check_float32(train.labels, name)
        train, val, test = (
            part._replace(labels=part.labels.astype(np.float32)) for part in (train, val, test)
        )
    mean, std = channel_statistics(train.images)
    divided = {"train": train, "val": val, "test": test}
    sizes = sorted({size for part in present.values() for size in part.sizes})
    kinds = {"multilabel": "labels", "regression": "values"}.get(objective, "classes")
    said = facts.summary(name, divided, source.class_names, sizes, kinds)
    doubts += facts.look_divided(divided, source.class_names)
    dataset = Dataset(
        name=name,
        train_images=train.images,
        train_labels=train.labels,
        val_images=val.images,
        val_labels=val.labels,
        test_images=test.images,
        test_labels=test.labels,
        num_classes=len(source.class_names),
        mean=mean,
        std=std,
        class_names=source.class_names,
        names=Images(*(_names(part) for part in (train, val, test))),
        files=Files(alpha, source.bits),
        notes=(*said, *source.notes, *few, *doubts),
        objective=objective,
    )
    chex.assert_equal_shape_suffix([dataset.train_images, val.images, test.images], 3)
    return dataset


def normalise(images: chex.Array, mean: chex.Array, std: chex.Array) -> chex.Array:
    """(images - mean) / std as float32: [..., C] with mean and std [C]. Numpy or JAX."""
    return (images.astype(np.float32) - mean) / std


def sample_images(
    dataset: Dataset, count: int = 20, side: int = 32, classes: int = 100
) -> np.ndarray:
    """The first `count` training images of each of at most `classes` classes or labels, uint8.

    Where images have neither, of all. Shape [C, count, h, w, 1 or 3] with h, w at most `side`:
    larger images are thinned out. Classes with fewer images repeat theirs. Values are stretched so
    that the set's largest is 255.
    """
    images = dataset.train_images
    step = max(1, -(-max(images.shape[1:3]) // side))
    found = []
    for rows in groups(dataset)[:classes]:
        rows = rows[:count]
        found.append(images[np.resize(rows, count), ::step, ::step].astype(np.float32))
    stacked = np.stack(found)
    low, high = min(float(stacked.min()), 0.0), float(stacked.max())
    return np.round(255 * (stacked - low) / max(high - low, 1e-6)).astype(np.uint8)


def groups(dataset: Dataset) -> list[np.ndarray]:
    """Rows of the training images of each class, or with each label that one has; or of all."""
    labels, kinds = dataset.train_labels, range(dataset.num_classes)
    if dataset.objective == objectives.DEFAULT:
        return [np.flatnonzero(labels == kind) for kind in kinds]
    if dataset.objective == "multilabel":
        return [np.flatnonzero(labels[:, kind]) for kind in kinds if labels[:, kind].any()]
    return [np.arange(len(labels))]


def channel_statistics(images: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [C] float32 of [n, H, W, C], over images and pixels.

    A constant channel gets the deviation 1, so that normalising makes it 0 rather than NaN.
    """
    if isinstance(images, Mapped) and images.dtype == np.uint8:
        return _byte_statistics(images)
    images = in_file_order(images)
    count = images.size // images.shape[-1]
    # Sums over one image at a time: a float64 copy of a large set would not fit in memory.
    total = np.zeros(images.shape[-1])
    for image in images:
        total += image.sum(axis=(0, 1), dtype=np.float64)
    mean = total / count
    squares = np.zeros(images.shape[-1])
    for image in images:
        squares += ((image - mean) ** 2).sum(axis=(0, 1))
    std = np.sqrt(squares / count)
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32)


def _byte_statistics(images: Mapped) -> tuple[np.ndarray, np.ndarray]:
    """`channel_statistics` of uint8 images by counts of the 256 values, in one reading."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for chunk in chunks(in_file_order(images)):
        for channel, own in enumerate(counts):
            own += np.bincount(chunk[..., channel].reshape(-1), minlength=256)
    values, share = np.arange(256.0), counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32)


def pixel_range(*parts: Pixels) -> tuple[float, float]:
    """Smallest and largest pixel of images [n, H, W, C]: 0 and 255 of uint8, else as found."""
    if parts[0].dtype == np.uint8:
        return 0.0, 255.0
    ends = [extent(part) for part in parts if part.size]
    return min(low for low, _ in ends), max(high for _, high in ends)


def name_of(arrays: Mapping[str, np.ndarray]) -> str:
    """What an image set in memory is called, by its content."""
    return ARRAYS + fingerprint(arrays)


def _the_same(name: str, arrays: Mapping[str, np.ndarray] | None) -> Mapping[str, np.ndarray]:
    """`arrays`; UserError where they are absent, or other ones than `name` says."""
    if arrays is None:
        raise UserError(
            f"The images of {name} were in memory: give the same arrays to"
            " fnas_jax.resume(workdir, x_train, y_train, ..), in Python, which goes on with the"
            " search; of a finished one, what it returns has retrain() and export()."
        )
    if name_of(arrays) != name:
        raise UserError(
            f"These arrays are not those that the search began with ({name_of(arrays)} now,"
            f" {name} then): give the same ones, or another workdir."
        )
    return arrays


def _check(
    parts: Mapping[str, Part], class_names: tuple[str, ...], name: str, objective: str
) -> None:
    classes = objective == objectives.DEFAULT
    if (classes or objective == "segmentation") and len(class_names) < 2:
        raise UserError(f"{name} has one class only ({class_names[0]}): two are needed.")
    train = parts["train"]
    for part in parts.values():
        bad = (part.labels < 0) | (part.labels >= len(class_names))
        if classes and bad.any():
            raise UserError(
                f"Label {part.labels[bad][0]} of {name} is out of range: it has "
                f"{len(class_names)} classes, numbered from 0."
            )
        if part.images.shape[1:] != train.images.shape[1:]:
            raise UserError(
                f"Training images of {name} have shape {list(train.images.shape[1:])}, but "
                f"held-out images {list(part.images.shape[1:])}: set task.image_size."
                if part.images.shape[-1] == train.images.shape[-1]
                else f"Training images of {name} have {train.images.shape[-1]} channels, "
                f"but held-out images {part.images.shape[-1]}."
            )


def _shares(test: float, val: float, split_test: bool, split_val: bool) -> tuple[float, float]:
    """The shares (test, val) to split off; 0 for what the source brings."""
    wanted = (("test_fraction", test, split_test), ("val_fraction", val, split_val))
    for key, share, needed in wanted:
        if needed and not 0 < share < 1:
            raise UserError(f"task.{key} is {share}: it must lie between 0 and 1.")
    shares = (test * split_test, val * split_val)
    if sum(shares) >= 1:
        raise UserError(
            f"task.test_fraction {test} and task.val_fraction {val} leave no training images: "
            "their sum must be less than 1."
        )
    return shares


def _names(part: Part) -> np.ndarray:
    """[n] uint64: half of each image's digest."""
    return np.frombuffer(b"".join(id_[:8] for id_ in part.ids), "<u8").astype(np.uint64)


def _rows(part: Part, rows: np.ndarray) -> Part:
    images = take(part.images, rows)
    return Part(images, part.labels[rows], [part.ids[row] for row in rows])
