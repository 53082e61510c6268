"""No pickle is loaded: one that would write a file is put everywhere where files are read."""

import contextlib
import io
import json
import pathlib
import pickle
import re
import shutil
import sqlite3
import sys

import numpy as np
import pytest
from jax._src.lru_cache import LRUCache
from PIL import Image

from fnas_jax import outcome, results
from fnas_jax.core import checkpoint, compiled, config_json, keep, run_json
from fnas_jax.core import logging as logs
from fnas_jax.core.types import Failed, UserError
from fnas_jax.knowledge import history, pins, pool_store, store, task_data, taught
from fnas_jax.layers import compile_kernels
from fnas_jax.ship import best, model, stopwatch
from fnas_jax.tasks import tables
from fnas_jax.tasks.readers import formats, masks
from fnas_jax.tasks.readers import kept as decoded
from fnas_jax.tasks.readers.examples import Source
from fnas_jax.timing import table as latencies
from fnas_jax.training import autotune
from tests.fuzz import test_images, test_kept, test_shipped, test_stored, test_tables
from tests.knowledge import test_pool_store as of_pools
from tests.knowledge import test_sources as of_sources
from tests.knowledge.test_pins import PIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet")]


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def marker(tmp_path):
    """What none of the pickles may write; each would."""
    path = tmp_path / "ran"
    for protocol in (0, pickle.HIGHEST_PROTOCOL):
        pickle.loads(pickle.dumps(Runs(path), protocol)).close()
        path.unlink()
    yield path
    assert not path.exists(), "a pickle was loaded"


def contents(marker):
    """A pickle as it is, as text, and as numpy keeps one."""
    objects = np.array([Runs(marker)] * 3, object)
    single, archive = io.BytesIO(), io.BytesIO()
    np.save(single, objects)
    np.savez(archive, images=objects, labels=objects, about=objects, class_names=objects)
    plain = [pickle.dumps(Runs(marker), p) for p in (0, pickle.HIGHEST_PROTOCOL)]
    return [*plain, single.getvalue(), archive.getvalue()]


def run_files():
    return {
        "config.json": json.dumps(test_stored.CONFIG).encode(),
        "run.json": json.dumps(test_stored.RUN._asdict()).encode(),
        "result.json": json.dumps(test_stored.RESULT).encode(),
        "metrics.jsonl": json.dumps(test_stored.LINE).encode(),
    }


def put_run(root):
    test_kept.put(root, run_files())


def read_run(root):
    for reader in (
        run_json.read_run,
        config_json.read_config,
        config_json.known_config,
        outcome.read,
    ):
        told(reader, root)
    told(results.Result, root)
    told(logs.metric_lines, root / "metrics.jsonl")
    told(test_stored.shown, root)


def put_store(root):
    with store.opened(root) as connection:
        history.record(connection, of_sources.run(), 0, of_sources.many())
        task_data.record_task(connection, "a", {"images": 1.0})
        task_data.record_images(connection, "a", np.zeros((1, 1, 2, 2, 3), np.uint8))
    pins.write(root / "taken.npz", test_stored.RUN.id, PIN)


def read_store(root):
    told(test_stored.looked_at, root)
    told(pins.read, root / "taken.npz", test_stored.RUN.id)


def put_pool(root):
    where = of_pools.store(root)
    pool_store.sync(where, of_pools.layout(where), of_pools.fresh(where), 0)
    test_kept.put(root, {taught.FILE: test_stored.TEACHERS})


def read_pool(root):
    told(taught.read, root)
    told(pool_store._newest, of_pools.store(root))


def png_of(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def put_images(root):
    test_kept.put(
        root,
        {
            "a.npz": test_images.zip_of(test_images.WHOLE),
            "arrays/x_train.npy": test_images.npy_of(test_images.IMAGES),
            "arrays/y_train.npy": test_images.npy_of(test_images.LABELS),
            "arrays/class_names.npy": test_images.npy_of(np.array(["a", "b", "c"])),
            "idx/train-images-idx3-ubyte": test_images.IDX[0],
            "idx/train-labels-idx1-ubyte": test_images.IDX[1],
            "listed/labels.csv": test_images.LISTED,
            "listed/a.png": test_images.PICTURES[0],
            "listed/b.png": test_images.PICTURES[0],
            "classes/a/0.png": test_images.PICTURES[0],
            "classes/b/0.png": test_images.PICTURES[0],
            "masks/images/0.png": test_images.PICTURES[0],
            "masks/masks/0.png": png_of(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2),
            "masks/classes.txt": b"a\nb\n",
            "t.csv": test_tables.PLAIN[0],
            "latencies.json": json.dumps(test_tables.LATENCIES).encode(),
            tables.FILES["macro"]: json.dumps(test_tables.MACRO[0]).encode(),
            tables.FILES["nats_cifar10"]: test_tables.NATS[0],
        },
    )


def read_images(root):
    for name in ("a.npz", "arrays", "idx", "listed", "classes"):
        told(formats.read, root / name, 0, "white", "classification")
    told(masks.read_folder, root / "masks", 0, "white")
    for name in ("macro", "nats_cifar10", "t.csv"):
        told(tables.load, name, root)
    told(latencies.read, str(root / "latencies.json"))


def put_caches(root):
    cache = compiled.Sealed(LRUCache(str(root), max_size=-1), root)
    cache.put("a", b"program")
    test_kept.put(root, {autotune.FILE: json.dumps(test_kept.WAYS).encode()})
    images = test_kept.OF_IMAGES
    decoded._save(Source(images, None, images, ("a", "b"), ()), root / "entry")


def read_caches(root):
    cache = compiled.Sealed(LRUCache(str(root), max_size=-1), root)
    told(cache.get, "a")
    told(autotune._read, root / autotune.FILE)
    told(decoded._load, root / "entry")


def put_kernels(root):
    test_kept.put(root, {"kernels.so": b""})


def read_kernels(root):
    told(compile_kernels._opened, root / "kernels.so")


def put_network(root):
    best.write(root, *test_shipped.kept(test_shipped.SPACES["cell"]), "card")
    (root / best.NAME / "load.py").write_text("")


def read_network(root):
    told(best.read, root)
    told(model.load, root)
    with pytest.MonkeyPatch.context() as patch:
        printed = '{"ms": [1.0], "device": "cpu"}'
        patch.setattr(stopwatch.outside, "run", lambda *_: printed)
        told(stopwatch.artefact, root / best.NAME, 1, 1)


def put_checkpoints(root):
    with contextlib.closing(checkpoint.open_(root)) as manager:
        checkpoint.save(manager, 1, test_kept.TREE, "about")


def put_foreign(root):
    """Beside a checkpoint, what other programs leave for Orbax and Flax, which reads as msgpack."""
    put_checkpoints(root)
    test_kept.put(root / "1", {"default/checkpoint": b"", "checkpoint": b"", "aggregate": b""})


def read_checkpoints(root):
    told(checkpoint.newest_about, root)
    told(test_kept.restored, root)


def put_training(root):
    keep.save(root, "winner", "of", 1, test_kept.TREE)


def read_training(root):
    told(keep.load, root, "winner", "of", test_kept.BLANK)


PLACES = {
    "run": (put_run, read_run),
    "store": (put_store, read_store),
    "pool": (put_pool, read_pool),
    "images and tables": (put_images, read_images),
    "caches": (put_caches, read_caches),
    "network": (put_network, read_network),
    "kernels": (put_kernels, read_kernels),
    "checkpoints": (put_checkpoints, read_checkpoints),
    "foreign checkpoints": (put_foreign, read_checkpoints),
    "training": (put_training, read_training),
    "surrogate": test_kept.KEEPERS["surrogate"],
    "apart": test_kept.KEEPERS["apart"],
}


MANY = ("pool", "checkpoints", "foreign checkpoints", "training", "surrogate", "apart")  # files
NO_WHOLE = ("kernels", "foreign checkpoints")  # what is refused as it is


def plainly(reader, *arguments):
    """As `told`, of what has nothing to say."""
    return reader(*arguments)


def told(reader, *arguments):
    """Calls it; what it says of damage does not matter here."""
    with contextlib.suppress(UserError, Failed, OSError, ValueError):
        return reader(*arguments)


@pytest.mark.parametrize(
    "place", [pytest.param(p, marks=[pytest.mark.slow] * (p == "pool")) for p in PLACES]
)
def test_no_pickle_runs_wherever_it_is_put(tmp_path, marker, place, monkeypatch):
    monkeypatch.setattr(history.time, "sleep", lambda seconds: None)
    write, read = PLACES[place]
    (tmp_path / "whole").mkdir()
    write(tmp_path / "whole")
    with monkeypatch.context() as whole:
        if place not in NO_WHOLE:  # it can be read as it is, or a pickle in it would prove nothing
            whole.setattr(sys.modules[__name__], "told", plainly)
        read(tmp_path / "whole")
    names = sorted(test_kept.files_in(tmp_path / "whole"))
    assert names
    kinds = contents(marker)
    for number, name in enumerate(names):
        for content in kinds[1:2] if place in MANY else kinds:
            root = tmp_path / str(number)
            shutil.copytree(tmp_path / "whole", root)
            (root / name).write_bytes(content)
            told(read, root)
            assert not marker.exists(), name
            shutil.rmtree(root)


def test_no_pickle_in_a_history_runs(tmp_path, marker):
    """In any column of any row."""
    put_store(tmp_path / "whole")
    path = tmp_path / "whole" / history.FILE
    with contextlib.closing(sqlite3.connect(path)) as whole:
        names = [
            row[0] for row in whole.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        columns = [(t, row[1]) for t in names for row in whole.execute(f"PRAGMA table_info({t})")]
    assert len(columns) > 20
    for table, column in columns:
        for content in contents(marker)[:3]:
            root = tmp_path / "changed"
            shutil.copytree(tmp_path / "whole", root)
            with (
                contextlib.closing(sqlite3.connect(root / history.FILE)) as changed,
                contextlib.suppress(sqlite3.IntegrityError),
            ):
                changed.execute(f"UPDATE {table} SET {column} = ?", (content,))
                changed.commit()
            told(test_stored.looked_at, root)
            assert not marker.exists(), (table, column)
            shutil.rmtree(root)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_no_extension_type_of_a_table_runs_anything(tmp_path, marker, kind):
    """Earlier versions of pyarrow unpickled what such a type said of itself."""
    pyarrow = pytest.importorskip("pyarrow")
    parquets = pytest.importorskip("pyarrow.parquet")
    said = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Runs(marker)),
    }
    fields = [
        pyarrow.field("image", pyarrow.binary(), metadata=said),
        pyarrow.field("label", pyarrow.int64(), metadata=said),
    ]
    rows = pyarrow.table([[test_images.PICTURES[0]] * 3, [0, 1, 0]], pyarrow.schema(fields))
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        parquets.write_table(rows, path)
    else:
        with pyarrow.ipc.new_stream(path, rows.schema) as stream:
            stream.write_table(rows)
    found = told(formats.read, path, 0, "white", "classification")
    assert found is None or len(found.train.images) == 3


# Where bytes become objects: what a process has pickled itself, and what refuses all names.
KNOWN = {"fnas_jax/tasks/workers.py", "fnas_jax/tasks/readers/objects.py"}
LOADERS = ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch")


def test_nothing_else_in_the_package_can_load_a_pickle():
    imports = re.compile(rf"^\s*(?:import|from)\s+({'|'.join(LOADERS)})\b", re.MULTILINE)
    allowed = re.compile(r"allow_pickle(?!=False)|(?:read|to)_pickle")
    found = {
        str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "fnas_jax").rglob("*.py")
    }
    assert {name for name, text in found.items() if imports.search(text)} == KNOWN
    assert not [name for name, text in found.items() if allowed.search(text)]
