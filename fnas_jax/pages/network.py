"""The network that a search has found: a diagram of blocks, and a table of its layers."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from fnas_jax.core import jsons
from fnas_jax.core.types import UserError
from fnas_jax.networks import readable
from fnas_jax.pages.elements import Markup, Table, facts, join, paragraph, table, tag
from fnas_jax.plots.data import Run
from fnas_jax.ship import best
from fnas_jax.spaces.base import Space

COLUMNS = ("kernel", "stride", "in", "middle", "out")
COLOURS = {
    "conv": "conv",
    "mbconv": "mbconv",
    "sepconv": "sepconv",
    "cell": "cell",
    "mixed cell": "cell",
}
CHANNELS, CLASSES = 3, 10  # where the images are not known; then they are not shown
PARTS = {"train": "for training", "validation": "for validation", "test": "for the winner's test"}
UNKNOWN = {("stem", "in"), ("classifier", "out")}
_LAYER = {"name": str, "op": str, "text": str, **dict.fromkeys(COLUMNS, jsons.NUMBER)}


class Kept(NamedTuple):
    """What `best/` says, as far as it is there and of the network that is shown."""

    record: dict[str, Any]  # of architecture.json; {} where there is none
    doubt: str  # why it is not taken; "" where it is, or nothing is there


def kept(run: Run, arch: Sequence[int] | None) -> Kept:
    """architecture.json of the run, if it is about `arch`, which may be in another form there."""
    path = run.folder / best.NAME / best.ARCHITECTURE
    if not path.is_file() or arch is None:
        return Kept({}, "")
    try:
        record = jsons.read_record(
            path,
            {
                "arch": [int],
                "canonical": [int],
                "layers": [_LAYER],
                "data": dict,
                "inputs": dict,
                "accuracy": {"test_images": int},
                "training": dict,
            },
            ("arch", "layers", "data", "accuracy"),
        )
        for layer in record["layers"]:
            jsons.record(layer, {}, repr(str(path)), ("name", "op"))
    except UserError as error:
        return Kept({}, f"{error}.")
    # One that was trained on from inherited weights is kept as it was asked for.
    if list(arch) not in (record["arch"], record.get("canonical")):
        return Kept({}, "What is kept in best/ now is another network, of a later training.")
    return Kept(record, "")


def layers(run: Run, arch: Sequence[int]) -> list[dict[str, Any]]:
    """The layers of `arch` in words; [] where nothing says what they are."""
    record = kept(run, arch).record
    if record:
        return record["layers"]
    if run.space is None or run.space.spec is None or not _fits(run.space, arch):
        return []
    found = readable.layers(run.space.spec, arch, CHANNELS, CLASSES)
    return [
        {name: x for name, x in layer.items() if (layer["name"], name) not in UNKNOWN}
        for layer in found
    ]


def _fits(space: Space, arch: Sequence[int]) -> bool:
    """Whether `arch` is one of the space, as that of a result that was changed may not be."""
    sizes = space.cardinalities
    return len(arch) == len(sizes) and all(0 <= a < k for a, k in zip(arch, sizes, strict=True))


def shown(run: Run, arch: Sequence[int], description: dict[str, Any]) -> Markup:
    """Text, diagram and layers of a network; its decisions, where there are no layers."""
    found = layers(run, arch)
    text = tag("p", tag("code", str(description.get("text", ""))))
    doubt = paragraph(kept(run, arch).doubt, "small")
    if not found:
        decisions = description.get("decisions")
        known = decisions if isinstance(decisions, dict) else {}
        return join([text, doubt, facts([(name, str(value)) for name, value in known.items()])])
    return join([text, doubt, diagram(found), layer_table(found)])


def diagram(found: Sequence[dict[str, Any]]) -> Markup:
    """A box for each layer, in the order of the computation; layers of one stack stand together."""
    stages = []
    for _, members in itertools.groupby(joined(found), key=lambda one: _stack(one["name"])):
        boxes = [block(layer) for layer in members]
        stages.append(boxes[0] if len(boxes) == 1 else tag("div", join(boxes), class_="stage"))
    arrow = tag("span", "→", class_="arrow")
    parts = [part for stage in stages for part in (arrow, stage)][1:]
    return tag("div", join(parts), class_="network", role="img", aria_label="the network's layers")


def _stack(name: str) -> str:
    """What a layer's name says of where it stands: "stack1_layer0" -> "stack1"."""
    return name.rpartition("_")[0] or name


def joined(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers, equal ones that follow each other as one with `times` and the name `last`."""

    def same(layer: dict[str, Any]) -> str:
        return repr([(name, x) for name, x in layer.items() if name != "name"])

    runs = [list(members) for _, members in itertools.groupby(found, key=same)]
    return [of[0] | {"times": len(of), "last": of[-1]["name"]} for of in runs]


def block(layer: dict[str, Any]) -> Markup:
    """The box of one layer."""
    op = str(layer["op"])
    times = f" x {layer['times']}" if layer.get("times", 1) > 1 else ""
    head = tag("b", f"{layer.get('text') or op}{times}")
    lines = [head, tag("div", str(layer["name"]), class_="shape")]
    size = f"{layer['kernel']}x{layer['kernel']}" if layer.get("kernel") else ""
    stride = f"/{layer['stride']}" if layer.get("stride", 1) != 1 else ""
    if size or stride:
        lines.append(tag("div", f"{size} {stride}".strip()))
    if "in" in layer and "out" in layer:
        through = f" → {layer['middle']}" if layer.get("middle") else ""
        lines.append(tag("div", f"{layer['in']}{through} → {layer['out']}"))
    more = [*_edges(layer), *_extras(layer)]
    lines += [tag("div", words, class_="shape") for words in more]
    kind = COLOURS.get(op, "end" if layer["name"] == "classifier" else "")
    return tag("div", join(lines), class_=f"block {kind}".strip())


def _edges(layer: dict[str, Any]) -> list[str]:
    """The operations between the nodes of a cell."""
    ends = [name.removeprefix("edge") for name in layer if name.startswith("edge")]
    return [f"{end.replace('_', '→')}: {layer[f'edge{end}']}" for end in ends]


def _extras(layer: dict[str, Any]) -> list[str]:
    """What boxes and columns do not say of a layer by themselves."""
    found = []
    if layer.get("squeeze_excitation"):
        gate = f" ({layer['gate']})" if layer.get("gate") else ""
        found.append(f"SE {layer['squeeze_excitation']}{gate}")
    if layer.get("skip") not in (None, "none"):
        found.append(f"skip: {layer['skip']}")
    if layer.get("activation") not in (None, "none"):
        found.append(str(layer["activation"]))
    return found


def layer_table(found: Sequence[dict[str, Any]]) -> Markup:
    """A row for each layer, or for several equal ones."""
    found = joined(found)
    used = [name for name in COLUMNS if any(layer.get(name) is not None for layer in found)]
    rows = [
        (
            str(layer["name"]) + (f" to {layer['last']}" if layer["times"] > 1 else ""),
            str(layer.get("text") or layer["op"]),
            *(layer.get(name) for name in used),
            ", ".join([*_edges(layer), *_extras(layer)]),
        )
        for layer in found
    ]
    return table(Table(("layer", "operation", *used, ""), rows))


def data_facts(run: Run, arch: Sequence[int] | None) -> list[tuple[str, str]]:
    """What is known of the images, by `best/`; [] where it is not there."""
    record = kept(run, arch).record
    if not record:
        return []
    data, taken = record["data"], record.get("inputs") or {}
    rows = [("images", str(data.get("name", "")))]
    rows += [(words, str(data[part])) for part, words in PARTS.items() if part in data]
    size = [taken.get(name) for name in ("height", "width", "channels")]
    if None not in size:
        rows.append(("taken as", f"{size[0]} x {size[1]} pixels, {size[2]} channel(s)"))
    if isinstance(taken.get("classes"), list):
        names = [str(name) for name in taken["classes"]]
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        rows.append((f"{len(names)} classes", ", ".join(names[:20]) + more))
    return [*rows, ("fingerprint", str(data.get("fingerprint", "")))]


def kept_folder(run: Run) -> pathlib.Path | None:
    """`best/`, where a trained network is kept."""
    folder = run.folder / best.NAME
    return folder if (folder / best.ARCHITECTURE).is_file() else None


def result_arch(run: Run) -> list[int] | None:
    """The winner's vector by result.json; None where there is none."""
    found = (run.result or {}).get("best")
    return None if found is None else list(found["arch"])
