"""Image files in, classes out: what the loaded network says of the same images as arrays."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

import fnas_jax
from fnas_jax import predict
from fnas_jax.ship import winner as ship
from tests.ship import winners


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    data = str(winners.write_npz(root / "fruit.npz"))
    (root / "run").mkdir()
    ship.keep(root / "run", winners.trained("mnas", data), print)
    pixels, _ = winners.images(count=9, seed=5)
    for i, image in enumerate(pixels):
        place = root / "photos" / ("deep" if i % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((30, 20) if i == 4 else (12, 12)).save(place / f"{i}.png")
    return root, pixels


def test_files_at_any_depth_get_the_class_that_arrays_get(folder, capsys):
    root, pixels = folder
    assert predict.command([f"--workdir={root / 'run'}", f"--images={root / 'photos'}"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == [str(p) for p in predict.find(root / "photos")]
    model = fnas_jax.load(root / "run")
    labels, probabilities = model.predict(pixels)
    assert len(rows) == 9
    for row in rows:
        i = int(row["file"].rpartition("/")[2].partition(".")[0])
        if i == 4:  # of another size: resized as the training images would be
            continue
        assert row["class"] == model.class_names[labels[i]]
        assert float(row["probability"]) == pytest.approx(probabilities[i].max(), abs=2e-6)


def test_one_file_is_enough(folder, capsys):
    root, _ = folder
    image = root / "photos" / "0.png"
    assert predict.command([f"--workdir={root / 'run'}", f"--images={image}"]) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_wrong_input_is_one_sentence(folder, tmp_path, capsys):
    root, _ = folder
    (tmp_path / "torn.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    for images, message in {
        tmp_path / "nothing": "there is no such file or folder",
        tmp_path / "empty": "holds no image (.jpeg, .jpg, .png)",
        tmp_path / "torn.png": "torn.png cannot be read as an image",
    }.items():
        assert predict.command([f"--workdir={root / 'run'}", f"--images={images}"]) == 2
        assert message in capsys.readouterr().err
    assert predict.command([f"--workdir={tmp_path}", f"--images={root / 'photos'}"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_batches_of_many_files_are_those_of_one(folder, monkeypatch):
    root, _ = folder
    model, paths = fnas_jax.load(root / "run"), predict.find(root / "photos")
    whole = list(predict.predict(model, paths))
    monkeypatch.setattr(predict, "BATCH", 4)
    assert [p[:2] for p in predict.predict(model, paths)] == [p[:2] for p in whole]
    np.testing.assert_allclose(
        [p[2] for p in predict.predict(model, paths)], [p[2] for p in whole], atol=1e-5
    )
