"""Image files in, classes out: what the loaded network says of the same images as arrays."""

import csv
import functools
import io

import jax
import numpy as np
import pytest
from PIL import Image

import fnas_jax
from fnas_jax import predict, registry
from fnas_jax.core.types import UserError
from fnas_jax.ship import winner as ship
from fnas_jax.ship.inputs import Inputs
from fnas_jax.tasks.readers.decode import Files
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
        tmp_path / "empty": "holds no image (PNG, JPEG, ",
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


def test_what_is_no_image_is_left_out_and_counted(folder, tmp_path, capsys):
    root, pixels = folder
    Image.fromarray(pixels[0]).save(tmp_path / "a.bmp")
    (tmp_path / "notes.txt").write_text("a")
    (tmp_path / ".DS_Store").touch()
    assert predict.command([f"--workdir={root / 'run'}", f"--images={tmp_path}"]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 2 and "a.bmp" in said.out
    assert f"left out: 1 x .txt ({tmp_path / 'notes.txt'})" in said.err


CLEAR = np.zeros((12, 12, 4), np.uint8)
CLEAR[:6] = (200, 100, 50, 255)


@pytest.mark.parametrize(
    ("channels", "files", "want"),
    [
        (3, {"alpha": "white"}, [255, 255, 255]),
        (3, {"alpha": "black"}, [0, 0, 0]),
        (3, {"alpha": "keep"}, [255, 255, 255]),
        (3, {"alpha": "drop"}, [7, 8, 9]),
        (4, {"alpha": "keep"}, [7, 8, 9, 0]),
        (1, {"alpha": "white"}, [255]),
        (2, {"alpha": "keep"}, [8, 0]),
    ],
)
def test_transparency_becomes_what_it_was_in_training(tmp_path, channels, files, want):
    taken = Inputs(12, 12, channels, "uint8", 0, 255, (0.0,), (1.0,), ("a", "b"), Files(**files))
    clear = CLEAR.copy()
    clear[6:] = (7, 8, 9, 0)
    Image.fromarray(clear).save(tmp_path / "a.png")
    image = predict.read(taken, tmp_path / "a.png")
    assert image.shape == (12, 12, channels)
    np.testing.assert_array_equal(image[-1, -1], want)
    if channels >= 3:
        np.testing.assert_array_equal(image[0, 0, :3], [200, 100, 50])


def test_depths_become_what_they_were_in_training(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (12, 12)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.full((12, 12), 3, np.uint8)).save(tmp_path / "flat.png")
    of = functools.partial(Inputs, 12, 12, 1, low=0, mean=(0.0,), std=(1.0,), class_names=("a",))
    sixteen = of(dtype="float32", high=65535, files=Files(bits=16))
    np.testing.assert_array_equal(predict.read(sixteen, tmp_path / "deep.png")[..., 0], deep)
    assert (predict.read(sixteen, tmp_path / "flat.png") == 3 * 257).all()
    eight = of(dtype="uint8", high=255)
    want = np.round(deep / 257)
    np.testing.assert_array_equal(predict.read(eight, tmp_path / "deep.png")[..., 0], want)
    digits = of(dtype="float32", high=16)  # of arrays: a file's numbers are taken as they are
    assert (predict.read(digits, tmp_path / "flat.png") == 3).all()
    with pytest.raises(UserError, match="trained on pixels from 0 to 16"):
        predict.read(digits, tmp_path / "deep.png")


def test_channels_that_files_do_not_have_are_refused():
    taken = Inputs(12, 12, 4, "uint8", 0, 255, (0.0,), (1.0,), ("a", "b"))
    with pytest.raises(UserError, match="4 channels, which files do not have"):
        predict.reading(taken)


def test_how_files_were_read_survives_from_training_to_the_command(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for name, ground in (("left", 0), ("right", 6)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(12):
            image = np.full((12, 12, 4), 90, np.uint8)
            image[..., :3] += draw.integers(0, 5, (12, 12, 3), dtype=np.uint8)
            image[..., 3] = 255
            image[:, ground : ground + 6, 3] = 0
            Image.fromarray(image).save(tmp_path / "set" / name / f"{i}.png")
    config = winners.config_of("mnas", tmp_path / "set")
    config.task.alpha = "black"
    task = registry.build_task(config)
    arch = task.space.parse(winners.ARCHS["mnas"])
    judged = task.final(jax.numpy.asarray(arch), jax.random.key(0))
    (tmp_path / "run").mkdir()
    ship.keep(tmp_path / "run", ship.Winner(config, task, judged, 0.5, "main"), print)
    model = fnas_jax.load(tmp_path / "run")
    assert model.inputs.files == Files("black", 8)
    image = predict.read(model.inputs, tmp_path / "set" / "left" / "0.png")
    assert (image[:, :6] == 0).all() and (image[:, 6:] >= 90).all()
    own = task.dataset
    assert any(
        (image == other).all()
        for part in (own.train_images, own.val_images, own.test_images)
        for other in part
    )


def test_a_folder_for_masks_is_refused_where_there_are_none(folder, tmp_path, capsys):
    root, _ = folder
    given = [f"--workdir={root / 'run'}", f"--images={root / 'photos'}", f"--out={tmp_path / 'm'}"]
    assert predict.command(given) == 2
    assert "a folder for masks, and the network answers labels and" in capsys.readouterr().err
