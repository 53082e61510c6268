"""The model card of a kept network: README.md of `best/`, as Hugging Face's hub reads it, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fnas_jax.core import cli

_LISTED = 20  # names of classes


def text(record: dict[str, Any]) -> str:
    """One page about the network that `record`, the content of architecture.json, describes."""
    parts = (_head(), _network(record), _use(record), _images(record), _training(record))
    return "\n\n".join(parts) + "\n"


def _head() -> str:
    return (
        "---\nlibrary_name: fnas_jax\npipeline_tag: image-classification\n"
        "tags: [image-classification, jax, flax, neural-architecture-search]\n---"
    )


def _network(record: dict[str, Any]) -> str:
    accuracy, costs, data = record["accuracy"], record["costs"], record["data"]
    rows = [
        ("accuracy on test images", _test(accuracy)),
        ("on validation images, when the search chose it", cli.percent(accuracy["validation"])),
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


def _test(accuracy: dict[str, Any]) -> str:
    return f"{cli.percent(accuracy['test'])} ({accuracy['correct']} of {accuracy['test_images']})"


def _rest(layer: dict[str, Any]) -> str:
    """What the columns of the table do not say."""
    said = {"name", "op", "kernel", "stride", "in", "out"}
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in layer.items() if v and k not in said)


def _use(record: dict[str, Any]) -> str:
    pixels, channels = record["inputs"]["pixels"], record["inputs"]["channels"]
    shape = "[N, H, W]" if channels == 1 else f"[N, H, W, {channels}]"
    return f"""## Use

```python
import fnas_jax

model = fnas_jax.load("path/to/this/folder")
labels, probabilities = model.predict(images)  # {pixels["dtype"]} {shape} of any size
```

`weights.safetensors` holds the variables of the plain Flax network, `architecture.json` all that is
needed to build it."""


def _images(record: dict[str, Any]) -> str:
    taken = record["inputs"]
    names, pixels = list(taken["classes"]), taken["pixels"]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    rows = [
        ("size", f"{taken['height']} x {taken['width']}, {taken['channels']} channel(s)"),
        ("other sizes", taken["resize"]),
        ("transparency in files", taken["files"]["alpha"]),
        ("pixels", f"{pixels['dtype']}, {pixels['low']:g} to {pixels['high']:g}"),
        ("mean of each channel", ", ".join(f"{m:.6g}" for m in taken["normalise"]["mean"])),
        ("deviation of each channel", ", ".join(f"{s:.6g}" for s in taken["normalise"]["std"])),
        (f"{len(names)} classes", ", ".join(names[:_LISTED]) + more),
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
            " another camera, place or time may be classified worse, and an image of none of the"
            " classes gets one of them all the same.",
            "",
            *_table(("", ""), rows),
        ]
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = (head, ("---",) * len(head), *rows)
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines]
