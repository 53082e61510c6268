import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from fnas_jax.core.types import UserError
from fnas_jax.tasks.data import load
from fnas_jax.tasks.readers.arrow import read_arrow

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
RANDOM = np.random.default_rng(0)


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def rows(n=24, kind="struct", labels="number", names=("cat", "dog")):
    """(table as `datasets` writes it, pixels, class numbers)"""
    pixels = RANDOM.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8)
    numbers = np.arange(n) % 2
    files = [encoded(one) for one in pixels]
    if kind == "struct":
        files = [{"bytes": b, "path": f"{i}.png"} for i, b in enumerate(files)]
    column = numbers if labels == "number" else [names[i] for i in numbers]
    table = pa.table({"id": [str(i) for i in range(n)], "image": files, "label": column})
    if labels == "number":
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    return table, pixels, numbers


@pytest.mark.parametrize("kind", ["struct", "bytes"])
@pytest.mark.parametrize("labels", ["number", "text"])
def test_one_file(tmp_path, kind, labels):
    table, pixels, numbers = rows(kind=kind, labels=labels)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    source = read_arrow(tmp_path / "a.parquet", 0, "white")
    assert source.class_names == ("cat", "dog")
    np.testing.assert_array_equal(source.train.images, pixels)
    np.testing.assert_array_equal(source.train.labels, numbers)
    assert load(str(tmp_path / "a.parquet")).image_shape == (5, 4, 3)


def test_parts_in_several_files(tmp_path):
    (tmp_path / "data").mkdir()
    made = {}
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "extra"):
        table, made[name], _ = rows(10)
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet")
    source = read_arrow(tmp_path, 0, "white")
    both = np.concatenate([made["train-00000-of-00002"], made["train-00001-of-00002"]])
    np.testing.assert_array_equal(source.train.images, both)
    np.testing.assert_array_equal(source.test.images, made["test-00000-of-00001"])
    assert "left out: 1 files of other parts" in source.notes[0].text
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"1 of the 2 files 'train-.*; the first is number 00000"):
        load(str(tmp_path))


def saved(folder, table, shards=2):
    """As `Dataset.save_to_disk` writes it: the stream format, in shards that state.json names."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    size = -(-len(table) // shards)
    for i, name in enumerate(names):
        file = str(folder / name)
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(i * size, size))
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))


def test_saved_to_disk_with_and_without_parts(tmp_path):
    table, pixels, numbers = rows()
    saved(tmp_path / "one", table)
    source = read_arrow(tmp_path / "one", 0, "white")
    np.testing.assert_array_equal(source.train.images, pixels)
    np.testing.assert_array_equal(source.train.labels, numbers)
    saved(tmp_path / "two" / "train", table)
    saved(tmp_path / "two" / "test", table.slice(0, 6), 1)
    (tmp_path / "two" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    dataset = load(str(tmp_path / "two"))
    np.testing.assert_array_equal(dataset.test_images, pixels[:6])
    (tmp_path / "one" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match="which is not there"):
        load(str(tmp_path / "one"))


def test_a_test_part_with_withheld_labels_is_left_out(tmp_path):
    pq.write_table(rows()[0], tmp_path / "train.parquet")
    table = rows()[0].set_column(2, "label", [np.full(24, -1)])
    pq.write_table(table, tmp_path / "test.parquet")
    source = read_arrow(tmp_path, 0, "white")
    assert source.test is None and "withheld (-1)" in source.notes[0].text


def test_damaged_files_are_told(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(rows()[0], path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"train\.parquet cannot be read"):
        load(str(tmp_path))
    path.write_bytes(whole[:100] + bytes(400) + whole[500:])
    with pytest.raises(UserError, match=r"train\.parquet cannot be read|holds no images"):
        load(str(tmp_path))
    saved(tmp_path / "saved", rows()[0], 1)
    arrow = tmp_path / "saved" / "data-00000-of-00001.arrow"
    arrow.write_bytes(arrow.read_bytes()[:600])
    with pytest.raises(UserError, match=r"\.arrow cannot be read"):
        load(str(tmp_path / "saved"))


def test_an_image_that_cannot_be_decoded_is_counted(tmp_path):
    table, _, _ = rows(kind="bytes")
    files = table.column("image").to_pylist()
    files[3], files[4] = b"no image", None
    table = table.set_column(1, "image", [files])
    pq.write_table(table, tmp_path / "train.parquet")
    source = read_arrow(tmp_path, 0, "white")
    assert len(source.train.labels) == 22 and "2 x unreadable images" in source.notes[0].text
    np.testing.assert_array_equal(source.train.labels[:4], [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pixels": [[1, 2]], "label": [1]}, "'pixels' .* encoded images are needed"),
        ({"image": [b"x"], "weight": [1.5]}, "has no column of labels"),
        ({"image": [b"x"], "label": [1.5]}, "'label' of .* is double: class numbers or names"),
        ({"a": [b"x"], "b": [b"x"], "label": [1]}, "has no column of images"),
        ({"image": [b"x"], "label": [1], "class": [1]}, r"several columns .* \(label, class\)"),
        ({"image": [b"x"], "label": pa.array([None], pa.int64())}, "Row 0 of .* has no label"),
    ],
)
def test_columns_that_are_not_clear_are_asked_for(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "train.parquet"))


def test_values_are_targets_of_regression(tmp_path):
    table, _, _ = rows(kind="bytes")
    pq.write_table(table.set_column(2, "label", [np.arange(24) / 8]), tmp_path / "a.parquet")
    source = read_arrow(tmp_path / "a.parquet", 0, "white", "regression")
    np.testing.assert_array_equal(source.train.labels, np.arange(24)[:, None] / 8)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"_data_files": [{"filename": 5}]}, "is damaged"),
        ({"_data_files": [{}]}, "filename"),
        ([], "is damaged"),
        ({"_data_files": [{"filename": "a" * 300}]}, "which is not there"),
    ],
)
def test_a_description_of_something_else_is_told(tmp_path, content, told):
    (tmp_path / "state.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"state\.json .*{told}"):
        read_arrow(tmp_path, 0, "white")


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [{"bytes": None, "path": 5}], "label": [0]},
        {"image": [{"bytes": "text", "path": "a.png"}], "label": [0]},
        {"image": [b"x"], "label": pa.array([b"a"]).dictionary_encode()},
    ],
)
def test_columns_of_other_types_are_told(tmp_path, columns):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"^The column '.* are needed"):
        read_arrow(tmp_path / "a.parquet", 0, "white")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install fnas-jax\[parquet\]"):
        load(str(tmp_path))
