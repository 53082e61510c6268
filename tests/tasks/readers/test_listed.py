import numpy as np
import pytest
from PIL import Image

from fnas_jax.core.types import UserError
from fnas_jax.tasks.data import load
from fnas_jax.tasks.readers.listed import read_listed

RANDOM = np.random.default_rng(0)


def images(folder, n=24, shape=(5, 4, 3)):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.integers(0, 256, (n, *shape), dtype=np.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{i}.png")
    return pixels


def written(path, n=24, header="path,label", row="{i}.png,{label}", end="\n"):
    lines = [header, *(row.format(i=i, label=("cat", "dog")[i % 2], n=i % 2) for i in range(n))]
    path.write_text(end.join(lines) + end)
    return path


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,label", "{i}.png,{label}"),
        ("\ufefffile_name;note;Class", "{i}.png;a, b;{label}"),
        ("target\timage", "{label}\t{i}.png"),
        ("filename,category", '"{i}.png","{label}"'),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_paths_and_labels_by_name(tmp_path, header, row, end):
    pixels = images(tmp_path)
    source = read_listed(
        written(tmp_path / "labels.csv", header=header, row=row, end=end), 0, "white"
    )
    assert source.class_names == ("cat", "dog")
    np.testing.assert_array_equal(source.train.images, pixels)
    np.testing.assert_array_equal(source.train.labels, np.arange(24) % 2)


def test_class_numbers_and_splits(tmp_path):
    pixels = images(tmp_path)
    path = written(tmp_path / "a.csv", header="path,label,split", row="{i}.png,{n},train")
    path.write_text(path.read_text().replace("3.png,1,train", "3.png,1,validation"))
    path.write_text(path.read_text().replace("\n6.png,0,train", "\n6.png,0,Test"))
    source = read_listed(path, 0, "white")
    assert source.class_names == ("0", "1") and len(source.train.labels) == 20
    np.testing.assert_array_equal(source.test.images, pixels[[6]])
    np.testing.assert_array_equal(source.val.images, pixels[[3, 13, 23]])


def test_a_folder_with_labels_csv_or_with_its_name_given(tmp_path):
    pixels = images(tmp_path / "pictures")
    written(tmp_path / "labels.csv")
    dataset = load(str(tmp_path))
    assert sum(map(len, (dataset.train_labels, dataset.val_labels, dataset.test_labels))) == 24
    (tmp_path / "labels.csv").rename(tmp_path / "mine.csv")
    by_name = load(str(tmp_path / "mine.csv"))
    by_key = load(str(tmp_path / "pictures"), labels=str(tmp_path / "mine.csv"))
    for other in (by_name, by_key):
        np.testing.assert_array_equal(other.train_images, dataset.train_images)
    assert dataset.train_images[0] in pixels


def test_a_table_of_something_else_leaves_class_folders_as_they_are(tmp_path):
    for name in ("a", "b"):
        images(tmp_path / name, 5)
    (tmp_path / "metadata.csv").write_text("photographer,year\nx,1999\n")
    assert load(str(tmp_path)).class_names == ("a", "b")


def test_several_columns_of_numbers_are_targets(tmp_path):
    images(tmp_path)
    path = tmp_path / "mine.csv"
    path.write_text(
        "file,x,y,split\n" + "".join(f"{i}.png,{i / 4},{-i},train\n" for i in range(24))
    )
    source = read_listed(path, 0, "white", "regression")
    want = np.stack([np.arange(24) / 4, -np.arange(24)], axis=1)
    np.testing.assert_array_equal(source.train.labels, want)
    assert source.class_names == ("x", "y") and source.objective == "regression"
    assert load(str(path), objective="regression").train_labels.shape[1] == 2
    path.write_text("file,a,b,c\n" + "".join(f"{i}.png,{i % 2},1,0\n" for i in range(24)))
    source = read_listed(path, 0, "white", "multilabel")
    assert source.class_names == ("a", "b", "c") and source.train.labels.dtype == np.int32
    with pytest.raises(UserError, match="has no column of labels"):
        load(str(path))
    path.write_text("file,a,note\n0.png,1,nice\n")
    with pytest.raises(UserError, match=r"Line 2 of .* has 'nice' as note: a number is needed"):
        load(str(path), objective="regression")


def test_what_cannot_be_decoded_is_counted(tmp_path):
    images(tmp_path)
    (tmp_path / "5.png").write_bytes(b"no image")
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:50])
    source = read_listed(written(tmp_path / "labels.csv"), 0, "white")
    assert len(source.train.labels) == 22
    assert "5.png" in source.notes[1].text and "7.png" in source.notes[1].text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "has no rows below its header"),
        ("path,weight\n0.png,3\n", "has no column of labels.*its columns are path, weight"),
        (
            "path,image,label\n0.png,0.png,a\n",
            r"several columns that could be the paths \(path, im",
        ),
        ("path,label\n0.png,a,b\n", "Line 2 of .* has 3 fields, and its header 2"),
        ("path,label\n0.png,\n", "Line 2 of .* has no label"),
        ("path,label\n0.png,a\nx.png,b\ny.png,b\n", "2 of the 3 images .* not there; .*line 3"),
        ("path,label,split\n0.png,a,dev\n", "Line 2 of .* has the split 'dev'"),
        ("path,label,split\n0.png,a,test\n", "'split' of .* has no row of train"),
        ('path,label\n"0.png,a\n', "cannot be read as a CSV file"),
    ],
)
def test_wrong_tables_are_told(tmp_path, text, message):
    images(tmp_path, 1)
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "mine.csv"))


def test_other_encodings_and_labels_that_are_not_there_are_told(tmp_path):
    images(tmp_path, 2)
    (tmp_path / "mine.csv").write_bytes("path,label\n0.png,a\n".encode("utf-16"))
    with pytest.raises(UserError, match="in UTF-8"):
        load(str(tmp_path / "mine.csv"))
    with pytest.raises(UserError, match=r"task\.labels is 'nope\.csv': there is no such file"):
        load(str(tmp_path), labels="nope.csv")
    with pytest.raises(UserError, match=r"takes a \.csv or \.tsv file"):
        load(str(tmp_path / "0.png"), labels="mine.csv")
