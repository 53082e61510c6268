import io
import json
import socket
import sys

import numpy as np
import pytest
from PIL import Image

from fnas_jax.core.types import UserError
from fnas_jax.tasks.data import load
from fnas_jax.tasks.readers.tfds import read_tfds

tfds = pytest.importorskip("tensorflow_datasets")


def pixels(split, i, shape):
    seed = [("train", "validation", "test").index(split), i]
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


class Base(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    SIZES = {"train": 40}  # noqa: RUF012
    SUPERVISED = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=self.features(), supervised_keys=self.SUPERVISED
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, n) for split, n in self.SIZES.items()}

    def _generate_examples(self, split, n):
        for i in range(n):
            yield i, self.example(split, i)


class BirdsPng(Base):
    SIZES = {"train": 40, "test": 10}  # noqa: RUF012
    SUPERVISED = ("photo", "bird")

    def features(self):
        kinds = tfds.features
        photo = kinds.Image(shape=(12, 10, 3), encoding_format="png")
        # A second image and a second label: the supervised keys decide.
        other = kinds.Image(shape=(4, 4, 1), encoding_format="png")
        return kinds.FeaturesDict(
            {
                "photo": photo,
                "mask": other,
                "bird": kinds.ClassLabel(names=["owl", "tit"]),
                "sex": kinds.ClassLabel(num_classes=2),
            }
        )

    def example(self, split, i):
        photo = encoded(pixels(split, i, (12, 10, 3)), "png")
        mask = encoded(pixels(split, i, (4, 4)), "png")
        return {"photo": photo, "mask": mask, "bird": i % 2, "sex": 0}


class WaferTensor(Base):
    def features(self):
        kinds = tfds.features
        tensor = kinds.Tensor(shape=(8, 6), dtype=np.float32)
        return kinds.FeaturesDict({"wafer": tensor, "fault": kinds.Scalar(dtype=np.int64)})

    def example(self, split, i):
        return {"wafer": pixels(split, i, (8, 6)) / np.float32(255), "fault": i % 3}


class ColourTensor(Base):
    SIZES = {"train": 20, "validation": 6, "test": 4}  # noqa: RUF012

    def features(self):
        kinds = tfds.features
        image = kinds.Tensor(shape=(5, 4, 3), dtype=np.uint8)
        return kinds.FeaturesDict({"image": image, "label": kinds.ClassLabel(num_classes=2)})

    def example(self, split, i):
        return {"image": pixels(split, i, (5, 4, 3)), "label": i % 2}


class AnySizeJpeg(Base):
    """As ImageNet: sizes differ, a test split without labels, figures on the validation split."""

    SIZES = {"train": 20, "validation": 6, "test": 4}  # noqa: RUF012

    def features(self):
        kinds = tfds.features
        image = kinds.Image(encoding_format="jpeg")
        return kinds.FeaturesDict({"image": image, "label": kinds.ClassLabel(num_classes=2)})

    def example(self, split, i):
        image = encoded(pixels(split, i, (20 + i, 24, 3)), "jpeg")
        return {"image": image, "label": -1 if split == "test" else i % 2}


class TextOnly(Base):
    def features(self):
        kinds = tfds.features
        return kinds.FeaturesDict({"text": kinds.Text(), "label": kinds.ClassLabel(num_classes=2)})

    def example(self, split, i):
        return {"text": str(i), "label": i % 2}


class Sized(Base):
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=n, version="1.0.0") for n in ("big", "small")]  # noqa: RUF012
    features, example = ColourTensor.features, ColourTensor.example


def prepare(builder, folder, **arguments):
    builder = builder(data_dir=str(folder), file_format="array_record", **arguments)
    builder.download_and_prepare()
    return builder.data_path


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (BirdsPng, WaferTensor, ColourTensor, AnySizeJpeg, TextOnly):
        prepare(builder, folder)
    for config in ("big", "small"):
        prepare(Sized, folder, config=config)
    return str(folder)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("tried the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def contents(part):
    return sorted((x.tobytes(), int(y)) for x, y in zip(part.images, part.labels, strict=True))


def written(builder, split, shape, classes):
    rows = range(builder.SIZES[split])
    return sorted((pixels(split, i, shape).tobytes(), i % classes) for i in rows)


def test_png_images_are_those_that_the_builder_wrote(data_dir):
    source = read_tfds("birds_png", data_dir, 0)
    assert source.class_names == ("owl", "tit")
    assert source.train.images.dtype == np.uint8
    assert contents(source.train) == written(BirdsPng, "train", (12, 10, 3), 2)
    assert contents(source.test) == written(BirdsPng, "test", (12, 10, 3), 2)
    assert source.val is None


def test_plain_tensors_without_supervised_keys(data_dir):
    source = read_tfds("wafer_tensor", data_dir, 0)
    assert source.train.images.shape == (40, 8, 6, 1)
    assert source.train.images.dtype == np.float32
    assert source.class_names == ("0", "1", "2")
    want = [pixels("train", i, (8, 6)) / np.float32(255) for i in range(40)]
    want = sorted((x.tobytes(), i % 3) for i, x in enumerate(want))
    assert contents(source.train) == want


def test_all_three_splits_of_a_tensor_set(data_dir):
    source = read_tfds("colour_tensor", data_dir, 0)
    for part, split in zip(source[:3], ("train", "validation", "test"), strict=True):
        assert contents(part) == written(ColourTensor, split, (5, 4, 3), 2)


def test_load_uses_the_official_test_split_and_splits_validation_from_train(data_dir):
    got = load("tfds:birds_png", data_dir, val_fraction=0.25)
    test = sorted(
        (x.tobytes(), int(y)) for x, y in zip(got.test_images, got.test_labels, strict=True)
    )
    assert test == written(BirdsPng, "test", (12, 10, 3), 2)
    assert (len(got.train_images), len(got.val_images)) == (30, 10)
    assert got.class_names == ("owl", "tit")


def test_a_test_split_without_labels_is_left_out(data_dir):
    got = load("tfds:any_size_jpeg", data_dir, image_size=16)
    assert got.image_shape == (16, 16, 3)
    assert (len(got.train_images), len(got.val_images), len(got.test_images)) == (16, 4, 6)


def test_different_sizes_need_image_size(data_dir):
    with pytest.raises(UserError, match=r"differ in size .*set task.image_size"):
        read_tfds("any_size_jpeg", data_dir, 0)


def test_data_dir_from_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    assert len(read_tfds("wafer_tensor", "", 0).train.images) == 40


def test_configs_and_versions(data_dir):
    assert len(read_tfds("sized/small", data_dir, 0).train.images) == 40
    assert len(read_tfds("sized/small:1.0.0", data_dir, 0).train.images) == 40
    with pytest.raises(UserError, match=r"several configs in .*: sized/big, sized/small\."):
        read_tfds("sized", data_dir, 0)
    with pytest.raises(UserError, match=r"not there in version 2\.0\.0, but: 1\.0\.0"):
        read_tfds("sized/big:2.0.0", data_dir, 0)


def test_unknown_names_get_the_nearest_on_disk_or_bundled(data_dir):
    with pytest.raises(UserError, match=r"no TFDS set 'bird_png'.*did you mean 'birds_png'"):
        load("tfds:bird_png", data_dir)
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        load("tfds:cifr10", data_dir)
    with pytest.raises(UserError, match="no TFDS set 'qqqq'; prepared in") as error:
        load("tfds:qqqq", data_dir)
    assert "did you mean" not in str(error.value)


def test_known_sets_that_are_not_there_get_the_command(data_dir):
    with pytest.raises(UserError, match=r"tfds build cifar10 --file_format=array_record"):
        load("tfds:cifar10", data_dir)
    with pytest.raises(UserError, match=r"'mnist' is not in .*gone"):
        load("tfds:mnist", f"{data_dir}/gone")


def test_sets_that_are_not_for_image_classification_are_refused(data_dir):
    with pytest.raises(UserError, match=r"not for image classification.*label, text"):
        read_tfds("text_only", data_dir, 0)


def test_truncated_records_are_refused(tmp_path):
    folder = prepare(ColourTensor, tmp_path)
    record = next(folder.glob("*train.array_record*"))
    record.write_bytes(record.read_bytes()[:200])
    with pytest.raises(UserError, match=r"The split 'train' of .* cannot be read"):
        read_tfds("colour_tensor", str(tmp_path), 0)


def test_a_damaged_description_is_refused(tmp_path):
    folder = prepare(ColourTensor, tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text()[:50])
    with pytest.raises(UserError, match="cannot be read"):
        read_tfds("colour_tensor", str(tmp_path), 0)


def test_other_file_formats_are_refused_with_the_command(tmp_path):
    folder = prepare(ColourTensor, tmp_path)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"stored as tfrecord: only array_record can be read"):
        read_tfds("colour_tensor", str(tmp_path), 0)


def test_sets_without_a_train_split_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ColourTensor, "SIZES", {"test": 4})
    prepare(ColourTensor, tmp_path)
    with pytest.raises(UserError, match="has no split 'train', only test"):
        read_tfds("colour_tensor", str(tmp_path), 0)


def test_an_absent_library_is_one_sentence_that_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"'tfds:mnist' needs .*pip install fnas-jax\[tfds\]"):
        read_tfds("mnist", str(tmp_path), 0)
