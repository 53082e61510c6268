"""What a user should know about an image set before it is searched on, in numbers."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fnas_jax.core.mapped import extent
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import Note, Part

LOG = logging.getLogger(__name__)
# What a set is stands on the terminal before its search: no detail that --verbose has to ask for.
LOG.setLevel(logging.INFO)
WORDS = {"train": "training", "val": "validation", "test": "test"}
_SCALE = 8.0  # so many times wider pixels are on another scale
_IMBALANCE = 10.0  # so many times more images of one class than of another are told
_LISTED = 10  # names in a sentence


def look(parts: Mapping[str, Part], class_names: Sequence[str], name: str) -> tuple[Note, ...]:
    """What is doubtful about the parts of a set, as its maker divided it.

    `parts`: by "train", "val" and "test". Of labels, classes are looked at only: [n] int32.

    Raises:
      UserError: all images are equal, so that nothing can be learnt, or a class of held-out images
        has no training image.
    """
    notes = [*_copies(parts, name), *_scales(parts)]
    if _of_classes(parts):
        _check_learnt(parts, class_names, name)
        notes += _conflicts(parts, class_names)
    return tuple(notes)


def look_divided(parts: Mapping[str, Part], class_names: Sequence[str]) -> tuple[Note, ...]:
    """What is doubtful about parts as they are trained and judged on: what was split off counts.

    `parts` and labels as in `look`.
    """
    return (*_shared(parts), *(_balance(parts, class_names) if _of_classes(parts) else ()))


def summary(
    name: str,
    parts: Mapping[str, Part],
    class_names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    kinds: str = "classes",
) -> tuple[Note, ...]:
    """What a set is, in two sentences.

    Args:
      name: of the set.
      parts: "train", "val" and "test", as they are trained and judged on.
      class_names: of the C classes.
      sizes: different native heights and widths; () where unknown.
      kinds: what `class_names` are names of.
    """
    images = parts["train"].images
    height, width, channels = images.shape[1:]
    counts = {WORDS[part]: len(of.ids) for part, of in parts.items()}
    total = sum(counts.values())
    different = len(set().union(*(of.ids for of in parts.values())))
    copies = f" ({different} different)" if different < total else ""
    resized = ""
    if sizes and set(sizes) != {(height, width)}:
        resized = f", resized from {_span(sizes)}"
    ends = [extent(of.images) for of in parts.values() if of.images.size]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return (
        Note(
            f"{name}: {total} images{copies} of {len(class_names)} {kinds}"
            f" ({listed(class_names)}); {height}x{width} pixels{resized}, {channels}"
            f" channel{'s' * (channels != 1)}, {images.dtype} from {low:g} to {high:g}",
            loud=False,
        ),
        Note(", ".join(f"{count} {word} images" for word, count in counts.items()), loud=False),
    )


def tell(notes: Iterable[Note]) -> None:
    """Says what a set is, and what is doubtful about it: on the terminal, and in notebooks' log."""
    for text, loud in notes:
        LOG.log(logging.WARNING if loud else logging.INFO, "%s", text)


def listed(names: Sequence[str]) -> str:
    """The first of `names`, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _of_classes(parts: Mapping[str, Part]) -> bool:
    labels = parts["train"].labels
    return labels.ndim == 1 and labels.dtype.kind in "iu"


def _span(sizes: Sequence[tuple[int, int]]) -> str:
    """Smallest and largest of heights and widths."""
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    ends = [f"{height}x{width}" for height, width in (ordered[0], ordered[-1])]
    return ends[0] if len(ordered) == 1 else f"{ends[0]} to {ends[1]}"


def _copies(parts: Mapping[str, Part], name: str) -> list[Note]:
    counts = Counter(itertools.chain.from_iterable(part.ids for part in parts.values()))
    total = sum(counts.values())
    if len(counts) == 1 and total > 1:
        raise UserError(f"All {total} images of {name} are equal: nothing can be learnt of them.")
    if len(counts) == total:
        return []
    most = max(counts.values())
    return [
        Note(
            f"{total - len(counts)} of {total} images are copies of others (of one image"
            f" {most - 1}); where the set is divided here, equal images stay together"
        )
    ]


def _shared(parts: Mapping[str, Part]) -> list[Note]:
    notes = []
    for one, other in itertools.combinations(parts, 2):
        known = set(parts[one].ids)
        shared = sum(id_ in known for id_ in parts[other].ids)
        if shared:
            notes.append(
                Note(
                    f"{shared} of the {len(parts[other].ids)} {WORDS[other]} images are"
                    f" {WORDS[one]} images, too: accuracy on them measures memory"
                )
            )
    return notes


def _scales(parts: Mapping[str, Part]) -> list[Note]:
    """Parts whose pixels are of another type or scale than those of the training images."""
    notes = []
    ends = {part: extent(of.images) for part, of in parts.items() if of.images.size}
    low, high = ends["train"]
    for part in (part for part in ends if part != "train"):
        other_low, other_high = ends[part]
        narrow, wide = sorted((high - low, other_high - other_low))
        if wide > _SCALE * narrow:
            notes.append(
                Note(
                    f"pixels of the training images reach from {low:g} to {high:g}, those of the"
                    f" {WORDS[part]} images from {other_low:g} to {other_high:g}: where that is"
                    " another scale, bring them to one, or accuracy means nothing"
                )
            )
    return notes


def _conflicts(parts: Mapping[str, Part], class_names: Sequence[str]) -> list[Note]:
    """Equal images of several classes."""
    classes: dict[bytes, set[int]] = {}
    for part in parts.values():
        for id_, label in zip(part.ids, part.labels.tolist(), strict=True):
            classes.setdefault(id_, set()).add(label)
    torn = [sorted(of) for of in classes.values() if len(of) > 1]
    if not torn:
        return []
    pair = " and ".join(class_names[label] for label in min(torn)[:2])
    ids = {id_ for id_, of in classes.items() if len(of) > 1}
    rows = sum(id_ in ids for part in parts.values() for id_ in part.ids)
    return [
        Note(
            f"{len(torn)} different images, of {rows} examples, stand under several classes each"
            f" (as {pair}): no network can be right about all of them"
        )
    ]


def _check_learnt(parts: Mapping[str, Part], class_names: Sequence[str], name: str) -> None:
    known = set(parts["train"].labels.tolist())
    for part, of in parts.items():
        unknown = sorted(set(of.labels.tolist()) - known)
        if unknown:
            rows = int(np.isin(of.labels, unknown).sum())
            raise UserError(
                f"Class '{class_names[unknown[0]]}' of {name} has 0 training examples, and is among"
                f" the {WORDS[part]} images: {rows} of these {len(of.labels)} are of"
                f" {len(unknown)} such class{'es' * (len(unknown) > 1)}."
            )


def _balance(parts: Mapping[str, Part], class_names: Sequence[str]) -> list[Note]:
    """Classes that are far larger than others, and those that a held-out part lacks."""
    counts = {
        part: np.bincount(of.labels, minlength=len(class_names)) for part, of in parts.items()
    }
    notes = []
    train = counts["train"]
    small, large = int(train.argmin()), int(train.argmax())
    if train[large] >= _IMBALANCE * max(1, train[small]):
        share = train[large] / train.sum()
        notes.append(
            Note(
                f"classes have {train[small]} ('{class_names[small]}') to {train[large]}"
                f" ('{class_names[large]}') training examples: to answer the largest always is"
                f" right for {100 * share:.1f}% of them"
            )
        )
    for part in (part for part in counts if part != "train"):
        lacking = [class_names[c] for c in np.flatnonzero(counts[part] == 0).tolist()]
        if lacking:
            notes.append(
                Note(
                    f"the {WORDS[part]} images have none of {len(lacking)} of the"
                    f" {len(class_names)} classes ({listed(lacking)})"
                )
            )
    return notes
