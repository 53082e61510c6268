"""Files that were made to run something, to read elsewhere, or to take all memory."""

import io
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from fnas_jax.core import memory
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import arrow, decode, folder, formats, idx, masks, named, npz, stored
from fnas_jax.tasks.readers.table import Row, Table
from fnas_jax.tasks.readers.table import read as read_table
from tests.fuzz import damage

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n%%EOF\n"


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def image_files(place, count=3):
    place.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(place / f"{i}.png")


def test_no_pickle_runs_whatever_reads_it(tmp_path):
    marker = tmp_path / "ran"
    content = pickle.dumps(Runs(marker))
    pickle.loads(content).close()
    assert marker.exists()  # it would
    marker.unlink()
    objects = np.array([Runs(marker)] * 4, object)
    np.savez(tmp_path / "a.npz", images=objects, labels=objects)
    np.save(tmp_path / "a.npy", objects)
    for name in ("b.npz", "b.npy", "b.parquet", "b.arrow", "train-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(content)
    readers = {
        "a.npz": lambda path: npz.read_npz(path, 0),
        "b.npz": lambda path: npz.read_npz(path, 0),
        "a.npy": stored.read_array,
        "b.npy": stored.read_array,
        "b.parquet": lambda path: arrow.read_arrow(path, 0, "white"),
        "b.arrow": lambda path: arrow.read_arrow(path, 0, "white"),
        "train-images-idx3-ubyte": idx.read_array,
    }
    for name, reader in readers.items():
        with pytest.raises(UserError, match=name):
            reader(tmp_path / name)
        assert not marker.exists(), name


def test_postscript_under_another_name_is_never_opened(tmp_path, monkeypatch):
    def ghostscript(*arguments, **options):
        raise AssertionError("another program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", ghostscript)
    image_files(tmp_path / "a" / "x")
    image_files(tmp_path / "a" / "y")
    (tmp_path / "a" / "x" / "9.png").write_bytes(EPS)
    source = folder.read_folder(tmp_path / "a", 0)
    assert len(source.train.labels) == 6 and "9.png" in source.notes[0].text
    image_files(tmp_path / "b" / "images")
    image_files(tmp_path / "b" / "masks")
    (tmp_path / "b" / "masks" / "0.png").write_bytes(EPS)
    source = masks.read_folder(tmp_path / "b", 0)
    assert len(source.train.labels) == 2
    with pytest.raises(UserError, match=r"9\.png cannot be read as an image"):
        decode.read_image(tmp_path / "a" / "x" / "9.png", "L")


def png_claiming(width, height):
    def chunk(kind, content):
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_all_memory_is_left_out_with_its_name(tmp_path):
    for name in "xy":
        image_files(tmp_path / name)
    (tmp_path / "x" / "bomb.png").write_bytes(png_claiming(13_000, 13_000))
    source = folder.read_folder(tmp_path, 0)
    assert len(source.train.labels) == 6
    assert source.notes[0].loud and "bomb.png: it says that it has 13,000 x 13,000 pixels" in (
        source.notes[0].text
    )
    with pytest.raises(UserError, match=r"bomb\.png .* more than 89,478,485"):
        decode.read_image(tmp_path / "x" / "bomb.png", "RGB")
    decode.header(io.BytesIO(png_claiming(8_000, 8_000)))  # a large photograph is none


def test_links_that_lead_out_are_followed_and_told(tmp_path):
    image_files(tmp_path / "set" / "x")
    image_files(tmp_path / "elsewhere" / "y")
    image_files(tmp_path / "far")
    (tmp_path / "set" / "y").symlink_to(tmp_path / "elsewhere" / "y")
    (tmp_path / "set" / "x" / "9.png").symlink_to(tmp_path / "far" / "2.png")
    (tmp_path / "set" / "x" / "8.png").symlink_to(tmp_path / "set" / "x" / "0.png")
    source = folder.read_folder(tmp_path / "set", 0)
    assert len(source.train.labels) == 8
    (note,) = (n.text for n in source.notes if "lead out" in n.text)
    assert note.startswith("4 images are links") and str(tmp_path / "far" / "2.png") in note


def test_links_out_of_a_folder_of_masks_are_told(tmp_path):
    for kind in ("set/images", "set/masks", "far"):
        image_files(tmp_path / kind)
    (tmp_path / "set" / "masks" / "2.png").unlink()
    (tmp_path / "set" / "masks" / "2.png").symlink_to(tmp_path / "far" / "2.png")
    source = masks.read_folder(tmp_path / "set", 0)
    (note,) = (n.text for n in source.notes if "lead out" in n.text)
    assert note.startswith("1 images are links") and str(tmp_path / "far" / "2.png") in note


@pytest.mark.parametrize("name", ["a" * 300, f"{'a' * 300}.parquet", f"{'a' * 300}.csv"])
def test_a_name_that_is_too_long_is_not_there(tmp_path, name):
    for labels in ("", name):
        with pytest.raises(UserError):
            named.read(str(tmp_path / name), "", 0, "white", "classification", labels, "")
    image_files(tmp_path / "set")
    with pytest.raises(UserError, match="there is no such file"):
        formats.read(tmp_path / "set", 0, "white", "classification", name)
    (tmp_path / "labels.csv").write_text(f"path,label\n{name},0\n")
    with pytest.raises(UserError, match=r"1 of the 1 images .* are not there"):
        formats.read(tmp_path, 0, "white", "classification")


def members(**arrays):
    found = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        found[f"{name}.npy"] = file.getvalue()
    return found


def archive(path, files, change=lambda data: data, **options):
    with zipfile.ZipFile(path, "w", **options) as made:
        for name, content in files.items():
            made.writestr(name, content)
    path.write_bytes(change(path.read_bytes()))


IMAGES, LABELS = np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 0, 1])
HEADER, ENTRY = b"PK\x03\x04", b"PK\x01\x02"


def changed(place, value):
    """Sets the 16 bits at `place` of every header, and of its entry in the directory."""

    def change(data):
        found = bytearray(data)
        for mark, shift in ((HEADER, 0), (ENTRY, 2)):
            at = data.find(mark)
            while at >= 0:
                found[at + place + shift : at + place + shift + 2] = struct.pack("<H", value)
                at = data.find(mark, at + 1)
        return bytes(found)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(changed(6, 1), "is encrypted", id="encrypted"),
        pytest.param(changed(8, 77), "compression", id="unknown compression"),
    ],
)
def test_archives_that_are_not_read_are_told(tmp_path, change, message):
    archive(tmp_path / "a.npz", members(images=IMAGES, labels=LABELS), change)
    with pytest.raises(UserError, match=rf"a\.npz cannot be read .*'images'.*{message}"):
        npz.read_npz(tmp_path / "a.npz", 0)


def test_a_header_of_more_than_there_is_allocates_nothing(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (26, 1000, 1000, 1000), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 100
    archive(tmp_path / "a.npz", members(labels=LABELS) | {"images.npy": content})
    (tmp_path / "x.npy").write_bytes(content)
    for read in (
        lambda: npz.read_npz(tmp_path / "a.npz", 0),
        lambda: stored.read_array(tmp_path / "x.npy"),
    ):
        with pytest.raises(UserError, match="ends after 100 of the 26,000,000,000 bytes"):
            read()


def test_what_is_unpacked_beyond_memory_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "host_bytes", lambda: 2**20)
    images = np.zeros((4, 1024, 1024), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=LABELS)
    assert (tmp_path / "a.npz").stat().st_size < 2**16
    with pytest.raises(UserError, match=r"'images', an array in it takes 0.0 GiB, and memory has"):
        npz.read_npz(tmp_path / "a.npz", 0)


@pytest.mark.parametrize(
    "labels",
    [np.zeros(4, "V4"), np.zeros(4, [("a", "i4"), ("b", "f4")]), np.zeros(4, "M8[s]")],
    ids=["void", "mixed", "times"],
)
def test_types_that_are_no_labels_are_told(labels):
    with pytest.raises(UserError, match="dtype"):
        npz.read_arrays({"images": IMAGES, "labels": labels}, "a set", 0)


def test_a_class_number_at_the_end_of_32_bits_is_a_name_and_no_size():
    labels = np.array([0, 2**31 - 1, 0, 2**31 - 1])
    source = npz.read_arrays({"images": IMAGES, "labels": labels}, "a set", 0)
    assert source.class_names == ("0", "2147483647")


def test_entries_of_no_bytes_are_not_as_many_as_a_header_likes(tmp_path):
    header = b"{'descr': '|S0', 'fortran_order': False, 'shape': (1099511627776,), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    (tmp_path / "y.npy").write_bytes(content)
    with pytest.raises(UserError, match="which holds nothing"):
        stored.read_array(tmp_path / "y.npy")


@pytest.mark.parametrize("kind", ["|S0", "|u1", "<f8"])
def test_sizes_of_no_entries_are_bounded_too(tmp_path, kind):
    """NumPy makes such an array, of no bytes, and fails where anything is made of it."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (0, {2**62}, {2**62}), }}"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("images.npy", "labels.npy"):
            archive.writestr(name, content)
    with pytest.raises(UserError, match="its shape is"):
        npz.read_npz(tmp_path / "a.npz", 0)


def test_parts_of_pictures_that_claim_all_memory_are_told(tmp_path):
    image_files(tmp_path / "a")
    image_files(tmp_path / "b")
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "ICO", sizes=[(8, 8)])
    content = bytearray(file.getvalue())
    at = content.index(b"IDAT")
    content[at - 4 : at] = b"\xff" * 4  # of its length
    (tmp_path / "a" / "9.ico").write_bytes(content)
    found = damage.read(folder.read_folder, tmp_path, 0)
    assert len(found.train.images) == 6 and "9.ico" in found.notes[0].text


@pytest.mark.parametrize("labels", [2, 4])
def test_columns_of_different_lengths_are_told(tmp_path, labels):
    """As of a Parquet file, which says of each column how many rows it has."""
    image_files(tmp_path / "a")
    rows = [Row(path, path) for path in sorted((tmp_path / "a").iterdir())]
    tables = {"train": Table(lambda: iter(rows), np.arange(labels) % 2)}
    with pytest.raises(UserError, match=f"part train has 3 images and {labels} labels"):
        read_table(tables, 0, "white", "a.parquet", (), "classification")
