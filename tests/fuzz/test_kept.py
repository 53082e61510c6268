"""What is kept to go on from, or not to do again: checkpoints, stores and caches, damaged."""

import contextlib
import functools
import json
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.lru_cache import LRUCache

from fnas_jax.core import apart, checkpoint, compiled, keep
from fnas_jax.core import config as config_lib
from fnas_jax.knowledge import surrogates
from fnas_jax.layers import compile_kernels
from fnas_jax.planning import plan
from fnas_jax.tasks.readers import kept as decoded
from fnas_jax.tasks.readers.examples import Note, Part, Source
from fnas_jax.training import autotune
from tests.fuzz import damage

# They say what is damaged as a warning, and what Orbax and NumPy find in it in their own.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet")]
TREE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.arange(3), "b": np.bool_(True)}
BLANK = {"w": np.zeros((2, 3), np.float32), "n": np.zeros(3, int), "b": np.bool_(False)}
FEWER = settings(max_examples=settings().max_examples // 10)  # a case of Orbax takes 80 ms


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def put(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """The files of two checkpoints, whose `n` is their number."""
    folder = tmp_path_factory.mktemp("steps")
    with contextlib.closing(checkpoint.open_(folder)) as manager:
        for step in (1, 2):
            checkpoint.save(manager, step, TREE | {"n": np.full(3, step)}, f"about {step}")
    return files_in(folder)


@st.composite
def damaged_files(draw, files):
    """`files` with one of them damaged, gone, or, if it is JSON, odd; or with two exchanged."""
    name = draw(st.sampled_from(sorted(files)))
    way = draw(st.sampled_from(["damaged", "damaged", "odd", "gone", "exchanged"]))
    if way == "gone":
        return {n: c for n, c in files.items() if n != name}
    if way == "exchanged":
        other = draw(st.sampled_from(sorted(files)))
        return files | {name: files[other], other: files[name]}
    if way == "odd":
        with contextlib.suppress(ValueError):
            return files | {name: draw(damage.odd_json(json.loads(files[name])))}
    return files | {name: draw(damage.damaged([files[name]]))}


def is_what_was_written(tree):
    return all(np.array_equal(tree[name], TREE[name]) for name in TREE)


@FEWER
@given(data=st.data())
def test_checkpoints(steps, data):
    """One of those that were written, or a sentence; damaged ones are taken away."""
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        put(root, data.draw(damaged_files(steps)))
        assert damage.read(checkpoint.newest_about, root) in ("", "about 1", "about 2")
        found = damage.read(restored, root)
        if isinstance(found, tuple):
            assert is_what_was_written(found[1] | {"n": TREE["n"]})
            assert found[1]["n"].tolist() == [found[0]] * 3


def restored(root):
    with contextlib.closing(checkpoint.open_(root)) as manager:
        return checkpoint.restore(manager, BLANK)


# What is written to a folder, and how it is read; as much as the arrays of steps.
KEEPERS = {
    "training": (
        lambda root: keep.save(root, "winner", "of", 1, TREE),
        lambda root: keep.load(root, "winner", "of", BLANK),
    ),
    "surrogate": (
        lambda root: surrogates.save(root / "a", TREE),
        lambda root: surrogates.load(root / "a", BLANK),
    ),
    "apart": (
        lambda root: apart.write(root, 3, TREE),
        lambda root: apart.read(root, 3, apart.OWN, BLANK),
    ),
}


@pytest.fixture(scope="module")
def by_keeper(tmp_path_factory):
    """The files that each of KEEPERS writes."""
    found = {}
    for name, (write, _) in KEEPERS.items():
        folder = tmp_path_factory.mktemp(name)
        write(folder)
        found[name] = files_in(folder)
    return found


@FEWER
@given(st.sampled_from(sorted(KEEPERS)), st.data())
def test_kept_trainings_surrogates_and_pools(by_keeper, name, data):
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        put(root, data.draw(damaged_files(by_keeper[name])))
        # Who reads a part that stands apart takes what is raised for a damaged checkpoint.
        with contextlib.suppress(FileNotFoundError if name == "apart" else ()):
            found = damage.read(KEEPERS[name][1], root)
            if isinstance(found, dict):
                assert found is BLANK or is_what_was_written(found)


@given(data=st.data())
def test_compiled_programs(data):
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        cache = compiled.Sealed(LRUCache(str(root), max_size=-1), root)
        contents = {"a": b"one program" * 5, "b": b"another program" * 5}
        for key, content in contents.items():
            cache.put(key, content)
        put(root, data.draw(damaged_files(files_in(root))))
        for key, content in contents.items():
            assert damage.read(cache.get, key) in (None, content)


WAYS = {
    "a": {"backend": "masked", "group": 4, "steps": None},
    "b": {"backend": "branched", "group": 1, "steps": 1e3},
}


@given(damage.odd_json(WAYS))
def test_measured_ways(content):
    with damage.folder({autotune.FILE: content}) as root:
        found = damage.read(autotune._read, root / autotune.FILE)
        assert all(isinstance(k.way, autotune.Way) and k.way.group >= 1 for k in found.values())


@given(data=st.data())
def test_kernels(data):
    """Only what is whole is loaded, which would run."""
    content = data.draw(st.binary(max_size=300))
    digest = data.draw(st.sampled_from(["0" * 32, "", "x"]))
    name = f"kernels-0-{digest}.so"
    with damage.folder({name: content}) as root, pytest.raises(OSError, match=name):
        damage.read(compile_kernels._opened, root / name)


PIXELS = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4, 1)
OF_IMAGES = Part(PIXELS, np.array([0, 1, 0], np.int32), [bytes(16)] * 3, ((4, 4),))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The files of an entry of decoded images."""
    place = tmp_path_factory.mktemp("images") / "entry"
    decoded._save(Source(OF_IMAGES, None, OF_IMAGES, ("a", "b"), (Note("note"),)), place)
    return files_in(place)


@given(data=st.data())
def test_decoded_images(images, data):
    with damage.folder({f"entry/{n}": c for n, c in data.draw(damaged_files(images)).items()}) as r:
        found = damage.read(decoded._load, r / "entry")
        if found is not None:
            assert np.array_equal(found.train.images, PIXELS) and found.class_names == ("a", "b")


@functools.cache
def planned():
    return config_lib.validate(
        config_lib.nest(
            config_lib.flatten(config_lib.default())
            | {"search.plan": plan.AUTO, "search.seconds": 60.0, "task.name": "images/digits"}
        )
    )


@given(damage.odd_json(config_lib.flatten(planned())))
def test_plans(content):
    with damage.folder({"config.json": content}) as root:
        found = damage.read(plan.stored, planned(), root)
        if isinstance(found, dict):
            damage.read(plan.changed, planned(), found)
