"""The model card of a kept network: README.md of `best/`, as Hugging Face's hub reads it, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fnas_jax.core.measure import Measure
from fnas_jax.objectives import base as objectives

_LISTED = 20  # names of classes
# What the hub calls them; it has no word for values
_KINDS = {
    "classification": "image-classification",
    "multilabel": "image-classification",
    "segmentation": "image-segmentation",
}

_NAMED = {"multilabel": "labels", "regression": "values"}


def text(record: dict[str, Any]) -> str:
    """One page about the network that `record`, the content of architecture.json, describes."""
    parts = (_head(record), _network(record), _use(record), _images(record), _training(record))
    return "\n\n".join(parts) + "\n"


def _head(record: dict[str, Any]) -> str:
    kind = _KINDS.get(record["objective"]["name"], "other")
    return (
        f"---\nlibrary_name: fnas_jax\npipeline_tag: {kind}\n"
        f"tags: [{kind}, jax, flax, neural-architecture-search]\n---"
    )


def _network(record: dict[str, Any]) -> str:
    accuracy, costs, data = record["accuracy"], record["costs"], record["data"]
    measure = objectives.parse(record["objective"]).measure
    rows = [
        (f"{measure.name} on test images", _test(accuracy, measure)),
        ("on validation images, when the search chose it", measure.text(accuracy["validation"])),
        *((name, f"{value:.6g}") for name, value in _others(accuracy, measure)),
        ("multiply-adds of an image", f"{costs['mflops']:.3g} million"),
        ("parameters", f"{costs['params_m']:.3g} million"),
        ("latency where it was measured", f"{costs['latency_ms']:.3g} ms"),
        *_by_source(costs.get("latency_by_source")),
    ]
    layers = [
        f"| `{layer['name']}` | {layer['op']} | {layer.get('kernel', '')} |"
        f" {layer.get('stride', '')} | {layer['in']} | {layer['out']} | {_rest(layer)} |"
        for layer in record["layers"]
    ]
    return "\n".join(
        [
            f"# A network for {data['name']}",
            "",
            f"Found by architecture search in the space `{record['space']['name']}`:"
            f" `{record['description']['text']}`.",
            "",
            *_table(("", ""), rows),
            "",
            "| layer | operation | kernel | stride | in | out | |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *layers,
        ]
    )


def _by_source(latency: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The row of a latency that was not measured, by which the search went."""
    if latency is None:
        return []
    where = f" of {latency['device']}" if latency["device"] else ""
    kind = {"table": "a table", "python": "a function"}[latency["source"]]
    return [(f"latency by {kind}{where}", f"{latency['ms']:.3g} ms")]


def _test(accuracy: dict[str, Any], measure: Measure) -> str:
    images, between = accuracy["test_images"], ""
    if accuracy["interval"] is not None:
        ends = (measure.text(measure.sign * accuracy["interval"][end]) for end in ("low", "high"))
        between = f"; 95% between {' and '.join(ends)}"
    elif accuracy.get("no_interval"):  # those of earlier versions did not say why
        between = f"; no interval: {accuracy['no_interval']}"
    what = (
        f"{accuracy['correct']} of {images}" if measure.name == "accuracy" else f"{images} images"
    )
    return f"{measure.text(accuracy['test'])} ({what}{between})"


def _others(accuracy: dict[str, Any], measure: Measure) -> list[tuple[str, float]]:
    """The other metrics on test images."""
    return [(name, x) for name, x in accuracy["metrics"].items() if name != measure.name]


def _rest(layer: dict[str, Any]) -> str:
    """What the columns of the table do not say."""
    said = {"name", "op", "kernel", "stride", "in", "out"}
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in layer.items() if v and k not in said)


def _use(record: dict[str, Any]) -> str:
    pixels, channels = record["inputs"]["pixels"], record["inputs"]["channels"]
    first, second = objectives.parse(record["objective"]).pair
    shape = "[N, H, W]" if channels == 1 else f"[N, H, W, {channels}]"
    return f"""## Use

```python
import fnas_jax

model = fnas_jax.load("path/to/this/folder")
{first}, {second} = model.predict(images)  # {pixels["dtype"]} {shape} of any size
```

`weights.safetensors` holds the variables of the plain Flax network, `architecture.json` all that is
needed to build it."""


def _images(record: dict[str, Any]) -> str:
    taken = record["inputs"]
    names, pixels = list(taken["classes"]), taken["pixels"]
    kinds = _NAMED.get(record["objective"]["name"], "classes")
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    rows = [
        ("size", f"{taken['height']} x {taken['width']}, {taken['channels']} channel(s)"),
        ("other sizes", taken["resize"]),
        ("transparency in files", taken["files"]["alpha"]),
        ("pixels", f"{pixels['dtype']}, {pixels['low']:g} to {pixels['high']:g}"),
        ("mean of each channel", ", ".join(f"{m:.6g}" for m in taken["normalise"]["mean"])),
        ("deviation of each channel", ", ".join(f"{s:.6g}" for s in taken["normalise"]["std"])),
        (
            f"{len(names)} {kinds}",
            ", ".join(names[:_LISTED]) + more,
        ),
    ]
    return "\n".join(["## Images", "", *_table(("", ""), rows)])


def _training(record: dict[str, Any]) -> str:
    training, data, versions = record["training"], record["data"], record["versions"]
    rows = [(name.replace("_", " "), str(value)) for name, value in training.items()]
    rows.append(("data", f"fingerprint {data['fingerprint']}"))
    rows.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    return "\n".join(
        [
            "## Training",
            "",
            f"On {data['train'] + data['validation']} images; the {data['test']} test images had no"
            " part in search or training. They are of the same source as the others: images of"
            f" another camera, place or time may be {_worse(record)}",
            "",
            *_table(("", ""), rows),
        ]
    )


def _worse(record: dict[str, Any]) -> str:
    """What to expect of other images."""
    if record["objective"]["name"] == "classification":
        return (
            "classified worse, and an image of none of the classes gets one of them all the same."
        )
    return "answered worse, and an image of another kind gets an answer all the same."


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = (head, ("---",) * len(head), *rows)
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines]
