"""Reader of TensorFlow Datasets on disk, without TensorFlow and without network.

Only sets already prepared in the array_record format can be read. Preparing most of them needs
TensorFlow, so it is left to TFDS's own command: `tfds build NAME --file_format=array_record`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import Example, Part, Source, collect, reason

_CHUNK = 256  # records decoded at once


def read_tfds(name: str, data_dir: str, image_size: int) -> Source:
    """Reads `name[/config][:version]` from `data_dir`.

    The image is the first supervised key, or the only feature that can be one: an Image, or a
    tensor [H, W] or [H, W, C]. The label is the second supervised key, or the only ClassLabel or
    integer scalar. A test split whose labels are withheld (-1) is left out.

    Args:
      name: e.g. "cifar10", "cifar10:3.0.2", "my_set/small".
      data_dir: "" means $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      image_size: side of the square to resize to; 0 keeps the native size.

    Raises:
      UserError: TFDS is not installed, or the set is not there (with the nearest name), of another
        file format, without image or label, or of unreadable records.
    """
    tfds = _library(name)
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = _locate(name, root)
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS raises whatever its parsers raise
        raise UserError(f"The data set in {folder} cannot be read: {reason(error)}") from None
    if "array_record" not in str(getattr(builder.info.file_format, "value", "")):
        raise UserError(
            f"The data set in {folder} is stored as {builder.info.file_format.value}: only "
            f"array_record can be read ({_command(name, root)})."
        )
    if "train" not in builder.info.splits:
        raise UserError(
            f"The data set in {folder} has no split 'train', only "
            f"{', '.join(sorted(builder.info.splits))}."
        )
    image_key, label_key = _keys(builder.info, folder)
    label = builder.info.features[label_key]
    parts: dict[str, Part] = {}
    for part, split in {"train": "train", "val": "validation", "test": "test"}.items():
        if split in builder.info.splits:
            rows = _rows(builder, split, image_key, label_key, folder)
            count = builder.info.splits[split].num_examples
            parts[part] = collect(rows, image_size, f"{name} ({split})", total=count)
    if "test" in parts and (parts["test"].labels < 0).all():
        del parts["test"]
    names = getattr(label, "names", None)
    count = getattr(label, "num_classes", None) or 1 + max(p.labels.max() for p in parts.values())
    return Source(
        parts["train"],
        parts.get("val"),
        parts.get("test"),
        tuple(names) if names else tuple(str(c) for c in range(int(count))),
    )


def _locate(name: str, root: Path) -> Path:
    """The folder of the newest version of `name` under `root`."""
    wanted, _, version = name.partition(":")
    found: dict[str, list[Path]] = {}
    for depth in ("*/*", "*/*/*"):
        for info in root.glob(f"{depth}/dataset_info.json"):
            key = info.parent.parent.relative_to(root).as_posix()
            found.setdefault(key, []).append(info.parent)
    configs = [key for key in sorted(found) if key == wanted or key.startswith(f"{wanted}/")]
    if len(configs) > 1 and wanted not in found:
        raise UserError(f"TFDS set '{wanted}' has several configs in {root}: {', '.join(configs)}.")
    if not configs:
        raise UserError(_missing(name, root, sorted(found)))
    folders = found[wanted if wanted in found else configs[0]]
    if version:
        folders = [folder for folder in folders if folder.name == version]
        if not folders:
            there = ", ".join(folder.name for folder in found[configs[0]])
            raise UserError(f"TFDS set '{wanted}' is not there in version {version}, but: {there}.")
    return max(folders, key=_version)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def _library(name: str) -> Any:
    """TensorFlow Datasets, an extra that takes a second to import. Raises UserError."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"The data set 'tfds:{name}' needs TensorFlow Datasets: pip install fnas-jax[tfds]"
            f" ({reason(error)})."
        ) from None
    return tfds


def _missing(name: str, root: Path, found: list[str]) -> str:
    tfds = _library(name)
    wanted = name.partition(":")[0]
    bundled = tfds.list_builders(with_community_datasets=False)
    if wanted.partition("/")[0] in bundled:
        return f"TFDS set '{name}' is not in {root} (prepare it: {_command(name, root)})."
    near = nearest(wanted, [*found, *bundled])
    there = ", ".join(found) if found else "none"
    return f"There is no TFDS set '{name}'; prepared in {root}: {there}{near or '.'}"


def _command(name: str, root: Path) -> str:
    return f"tfds build {name} --file_format=array_record --data_dir={root}"


def _keys(info: Any, folder: Path) -> tuple[str, str]:
    tfds = _library(info.name)
    features = dict(info.features.items())
    supervised = info.supervised_keys
    if supervised and len(supervised) == 2 and all(k in features for k in supervised):
        image, label = supervised
    else:
        kinds = tfds.features
        image = _only([k for k, f in features.items() if isinstance(f, kinds.Image)]) or _only(
            [k for k, f in features.items() if _is_picture(f)]
        )
        label = _only([k for k, f in features.items() if isinstance(f, kinds.ClassLabel)]) or _only(
            [k for k, f in features.items() if _is_number(f)]
        )
    if (
        not image
        or not label
        or not _is_picture(features[image])
        or not _is_number(features[label])
    ):
        raise UserError(
            f"The data set in {folder} is not for image classification: one image and one class "
            f"label are needed, its features are {', '.join(sorted(features))}."
        )
    return image, label


def _only(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else ""


def _is_picture(feature: Any) -> bool:
    shape = getattr(feature, "shape", None)
    return isinstance(shape, tuple) and len(shape) in (2, 3) and _kind(feature) in "biuf"


def _is_number(feature: Any) -> bool:
    return getattr(feature, "shape", None) == () and _kind(feature) in "biu"


def _kind(feature: Any) -> str:
    return np.dtype(feature.np_dtype).kind


def _rows(builder: Any, split: str, image: str, label: str, folder: Path) -> Iterator[Example]:
    try:
        source = builder.as_data_source(split=split)
        for start in range(0, len(source), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(source)))
            for i, record in zip(rows, source.__getitems__(list(rows)), strict=True):
                pixels = np.asarray(record[image])
                pixels = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
                pixels = pixels[..., None] if pixels.ndim == 2 else pixels
                yield Example(f"{split} row {i}", pixels, int(record[label]))
    except Exception as error:  # the record readers raise whatever their C++ parts raise
        raise UserError(
            f"The split '{split}' of {folder} cannot be read: {reason(error)}"
        ) from None
