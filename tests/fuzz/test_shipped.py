"""Networks that were kept or exported, damaged: they are loaded, or told in one sentence."""

import functools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core.types import UserError
from fnas_jax.networks import flax_reference, readable
from fnas_jax.objectives import base as objectives
from fnas_jax.objectives import classification
from fnas_jax.ship import best, flax_source, formats, inputs, model, stopwatch
from fnas_jax.ship import spec as spec_lib
from fnas_jax.spaces import cell, mixed_cell, mixed_chain, mnas
from tests.fuzz import damage

NAMES = ("apple", "pear")
TAKEN = inputs.Inputs(8, 8, 1, "uint8", 0.0, 255.0, (10.0,), (5.0,), NAMES)
SPACES = {
    "mnas": mnas.make(2, strides=(1, 1), width=0.5, stem=16, stem_stride=1, head=16),
    "cell": cell.make(channels=2, cells_per_stage=1),
    "mixed_cell": mixed_cell.make(channels=2, cells_per_stage=1),
    "mixed_chain": mixed_chain.make(channels=2, cells_per_stage=1),
}


def kept(space):
    """(content of architecture.json, variables) of a network of zeros."""
    arch = np.zeros(len(space.cardinalities), int)
    record = {
        "format": 1,
        "objective": objectives.described(classification.of(len(NAMES))),
        "space": {"name": "a", "key": space.key} | spec_lib.described(space.spec),
        "arch": arch.tolist(),
        "description": {"text": "a"},
        "layers": readable.layers(space.spec, arch, TAKEN.channels, len(NAMES)),
        "inputs": inputs.described(TAKEN),
        "training": {"command": "main"},
        "accuracy": {"test": 0.5, "test_images": 2, "correct": 1},
        "versions": {"fnas_jax": "0"},
        "data": {"name": "a"},
    }
    module = flax_reference.of_spec(space.spec, arch, len(NAMES))
    image = np.zeros((1, TAKEN.height, TAKEN.width, TAKEN.channels), np.float32)
    shapes = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), image)
    return json.loads(json.dumps(record)), jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype), shapes
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The files of a `best/` of each space, by name."""
    found = []
    for name, space in SPACES.items():
        folder = best.write(tmp_path_factory.mktemp(name), *kept(space), "card")
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    return found


@pytest.fixture(scope="module", autouse=True)
def shapes_once():
    """The shapes of one network's variables are found once: that takes most of the time."""
    real, seen = model._check_weights, {}

    def check(module, taken, variables):
        shapes = {name: np.shape(leaf) for name, leaf in best.flat(variables).items()}
        case = repr((module, taken, sorted(shapes.items())))
        if case not in seen:
            try:
                seen[case] = real(module, taken, variables)
            except UserError as error:
                seen[case] = error
        if seen[case] is not None:
            raise UserError(str(seen[case]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_check_weights", check)
        yield


def sound(found):
    """What a model has that can be asked."""
    taken = found.inputs
    assert min(taken.height, taken.width, taken.channels) >= 1
    assert len(taken.mean) == len(taken.std) == taken.channels
    assert np.isfinite([*taken.mean, *taken.std, taken.low, taken.high]).all()
    assert min(taken.std) > 0 and taken.low <= taken.high and taken.dtype in ("uint8", "float32")
    assert len(found.class_names) == found.objective.outputs
    damage.read(repr, found)
    damage.read(lambda: (found.arch, found.description))
    damage.read(flax_source.source, found.architecture)
    images = np.zeros((1, taken.height, taken.width, taken.channels), taken.dtype)
    inputs.fitted(taken, inputs.checked(taken, np.full_like(images, taken.low)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("inputs", "height"), 2**31, "height is 2147483648; 1 to 65536"),
        (("inputs", "width"), 0, "width is 0"),
        (("inputs", "channels"), float("inf"), "cannot convert float infinity"),
        (("inputs", "pixels", "dtype"), "int8", "pixels are 'int8'"),
        (("inputs", "normalise", "std"), [0.0], "normalised by"),
        (("inputs", "normalise", "mean"), [1.0, 2.0], "2 means and 1 deviations for 1 channels"),
        (("inputs", "classes"), ["a"], "2 outputs, 1 names"),
        (("training", "command"), None, "its 'training' is"),
        (("accuracy",), {"test": 0.5}, "'accuracy' of .* has no 'test_images'"),
        (("description",), "a", "its 'description' is 'a'"),
        (("space", "options"), {"channels": 2**40}, "cannot be rebuilt"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else None,
)
def test_descriptions_that_are_impossible_are_told(folders, tmp_path, path, value, message):
    record = json.loads(folders[0][best.ARCHITECTURE])
    inside = functools.reduce(lambda found, name: found[name], path[:-1], record)
    inside[path[-1]] = value
    for name, content in (folders[0] | {best.ARCHITECTURE: json.dumps(record).encode()}).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        model.load(tmp_path)


def test_whole_networks_are_loaded(folders, tmp_path):
    """Of such that are refused, no part would be tried."""
    for i, files in enumerate(folders):
        (tmp_path / str(i)).mkdir()
        for name, content in files.items():
            (tmp_path / str(i) / name).write_bytes(content)
        sound(model.load(tmp_path / str(i)))


@given(data=st.data())
def test_networks(folders, data):
    """Weights have a digest: it is the description that says anything."""
    files = data.draw(st.sampled_from(folders))
    name = data.draw(st.sampled_from([best.ARCHITECTURE] * 5 + [best.WEIGHTS]))
    if name == best.ARCHITECTURE:
        content = data.draw(damage.odd_json(json.loads(files[name])))
    else:
        content = data.draw(damage.damaged([files[name]]))
    with damage.folder(files | {name: content}) as root:
        found = damage.read(model.load, root)
        if isinstance(found, model.Model):
            sound(found)


@given(data=st.data())
def test_weights_whose_digest_is_right(folders, data):
    """As of a file that another program has written."""
    files = data.draw(st.sampled_from(folders))
    content = data.draw(damage.damaged([files[best.WEIGHTS]]))
    record = json.loads(files[best.ARCHITECTURE])
    record["weights"]["digest"] = best.digest(content)
    written = {best.WEIGHTS: content, best.ARCHITECTURE: json.dumps(record).encode()}
    with damage.folder(files | written) as root:
        damage.read(model.load, root)


@given(data=st.data())
def test_descriptions_of_exports(folders, data):
    """The program that is timed is not run here."""
    record = json.loads(data.draw(st.sampled_from(folders))[best.ARCHITECTURE])
    printed = data.draw(st.sampled_from(['{"ms": [1.0], "device": "cpu"}']))
    files = {"load.py": b"", best.ARCHITECTURE: data.draw(damage.odd_json(record))}
    with damage.folder(files) as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch, "outside", SimpleNamespace(run=lambda *_: printed))
        damage.read(stopwatch.artefact, root, 1, 1)


@pytest.fixture(scope="module")
def exported(folders, tmp_path_factory):
    """The files of an export to JAX."""
    folder = tmp_path_factory.mktemp("exported")
    for name, content in folders[1].items():
        (folder / name).write_bytes(content)
    return formats.files_of("jax", model.load(folder), folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["cut", "zeros", "changed", "empty", "text"])
def test_damaged_exports_are_told(exported, way, tmp_path):
    content = exported["network.jax_export"]
    half = len(content) // 2
    files = exported | {
        "network.jax_export": {
            "cut": content[:half],
            "zeros": content[:half] + bytes(64) + content[half + 64 :],
            "changed": bytes(byte ^ 0x55 for byte in content[:64]) + content[64:],
            "empty": b"",
            "text": b"hello",
        }[way]
    }
    for name, part in files.items():
        (tmp_path / name).write_bytes(part)
    with pytest.raises(UserError, match="cannot be run"):
        stopwatch.artefact(tmp_path, 1, 1)
