"""Readers of image sets: a set or one sentence, whatever the files hold."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fnas_jax.tasks import data
from fnas_jax.tasks.readers import folder, formats, masks, npz
from tests.fuzz import damage

# Pillow warns of much that it reads all the same.
pytestmark = pytest.mark.filterwarnings("ignore")
OBJECTIVES = ("classification", "multilabel", "regression", "segmentation")
DTYPES = (
    *("u1", "i1", "i8", "u8", "f2", "f4", "f8", "c8", "?", "S3", "U2", "V4", "M8[s]", "m8[D]"),
    ">i4",
    [("a", "u1"), ("b", "f4")],
    [("a", "u1", (2,))],
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 7]), max_size=5).map(tuple)


def npy_of(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def npy_claiming(shape, dtype="|u1", content=b"\0" * 100):
    """An `.npy` file whose header promises an array of `shape`."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


def zip_of(members, **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2])
WHOLE = {"images.npy": npy_of(IMAGES), "labels.npy": npy_of(LABELS)}
CLAIMS = ((6, 2**31, 2), (2**40,), (2**62, 4), (-1, 4, 4), (6, 4, 4, 2**33), (0, 2**62, 2**62))


@st.composite
def arrays(draw):
    """An array of any type and shape, of bytes that may mean anything in it."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(SHAPES)
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    content = draw(st.binary(min_size=min(size, 64), max_size=min(size, 64)))
    filled = (content * (size // max(len(content), 1) + 1))[:size]
    return np.frombuffer(filled, dtype).reshape(shape) if dtype.itemsize else np.zeros(shape, dtype)


@st.composite
def npy_files(draw):
    kind = draw(st.sampled_from(["any", "whole", "damaged", "claims"]))
    if kind == "any":
        return npy_of(draw(arrays()))
    if kind == "claims":
        dtype = draw(st.sampled_from(["|u1", "<f8", "|O", "|S0", "<U1", "|V8"]))
        return npy_claiming(draw(st.sampled_from(CLAIMS)), dtype)
    whole = [npy_of(IMAGES), npy_of(LABELS)]
    return draw(st.sampled_from(whole)) if kind == "whole" else draw(damage.damaged(whole))


@st.composite
def npz_files(draw):
    if draw(st.booleans()):
        plain, packed = (
            zip_of(WHOLE, compression=kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        )
        return draw(damage.damaged([plain, packed]))
    names = st.sampled_from(["images", "labels", "x_train", "y_train", "class_names", "a"])
    members = draw(st.dictionaries(names.map("{}.npy".format), npy_files(), max_size=4))
    return zip_of(WHOLE | members if draw(st.booleans()) else members)


@given(npz_files(), st.sampled_from(OBJECTIVES), st.sampled_from([0, 4]))
def test_npz_files(content, objective, size):
    with damage.folder({"a.npz": content}) as root:
        damage.read(npz.read_npz, root / "a.npz", size, objective)


@given(st.dictionaries(st.sampled_from(["x_train", "y_train", "images", "labels"]), npy_files()))
def test_npy_files(files):
    files = {f"{name}.npy": content for name, content in files.items()}
    with damage.folder({"x_train.npy": npy_of(IMAGES), "y_train.npy": npy_of(LABELS)} | files) as r:
        damage.read(formats.read, r, 0, "white", "classification")


KEYS = ("x_train", "y_train", "x_test", "masks_train", "images", "labels", "class_names", "a", "")
NAMED = st.lists(st.text(max_size=3), max_size=4).map(np.array)


@given(arrays(), arrays(), st.sampled_from(OBJECTIVES))
def test_arrays_in_memory(images, labels, objective):
    given_ = {"x_train": images, "y_train": labels}
    damage.read(lambda: data.load("arrays", arrays=given_, objective=objective))


@given(
    st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), arrays(), max_size=4),
    st.one_of(st.none(), arrays(), NAMED),
    st.sampled_from(OBJECTIVES),
)
def test_arrays_of_any_names_and_names_of_classes(arrays_, names, objective):
    labels = IMAGES % 3 if objective == "segmentation" else LABELS
    whole = {"x_train": IMAGES, "y_train": labels} | arrays_
    given_ = whole | ({} if names is None else {"class_names": names})
    damage.read(lambda: data.load("arrays", arrays=given_, objective=objective))


def idx_of(array, code=8, shape=None):
    sizes = array.shape if shape is None else shape
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, code, len(sizes), *sizes) + array.tobytes()


IDX = (idx_of(IMAGES), idx_of(LABELS.astype(np.uint8)), idx_of(IMAGES, shape=(2**32 - 1,) * 3))


@given(
    st.lists(damage.damaged([*IDX, *map(gzip.compress, IDX)]), min_size=2, max_size=2),
    st.sampled_from([None, b"0 48\n1 49\n2 50\n", b"\xff", b"0 99999999999\n", b"0 -1\n"]),
)
def test_idx_files(contents, mapping):
    name = "emnist-a-train" if mapping is not None else "train"
    kinds = zip(("images-idx3", "labels-idx1"), contents, strict=True)
    files = {f"{name}-{kind}-ubyte": content for kind, content in kinds}
    with damage.folder(files | ({"emnist-a-mapping.txt": mapping} if mapping else {})) as root:
        damage.read(formats.read, root, 0, "white", "classification")


def encoded(kind, mode="L"):
    file = io.BytesIO()
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    image.convert(mode).save(file, kind)
    return file.getvalue()


PICTURES = [encoded(k) for k in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP", "ICO", "PCX")]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"


@given(st.lists(damage.damaged([*PICTURES, EPS]), min_size=2, max_size=4), st.sampled_from([0, 4]))
def test_folders_of_images(contents, size):
    files = {f"{'ab'[i % 2]}/{i}.png": content for i, content in enumerate(contents)}
    with damage.folder(files | {"a/9.png": PICTURES[0]}) as root:
        damage.read(folder.read_folder, root, size)


MASKS = [encoded("PNG", mode=mode) for mode in ("L", "P", "1", "RGB", "I;16")]
CLASS_NAMES = st.one_of(st.none(), st.binary(max_size=9), st.just(b"a\nb\n" * 40))


@given(damage.damaged([PICTURES[0], EPS]), damage.damaged([*MASKS, EPS]), CLASS_NAMES)
def test_folders_of_masks(image, mask, names):
    files = {"images/0.png": image, "masks/0.png": mask}
    if names is not None:
        files["classes.txt"] = names
    with damage.folder(files) as root:
        damage.read(masks.read_folder, root, 0, "white")


LISTED_NUMBERS = b"path;x;y\na.png;1;2\nb.png;" + b"9" * 400 + b";1e400\n"
LISTED_LONG = b"path,label\n" + b"a" * 300 + b".png,0\n"
LISTED = b"path,label\na.png,0\nb.png,1\na.png,0\n"


@given(
    damage.damaged([LISTED, LISTED_NUMBERS, LISTED_LONG, b"\xff\xfe"]),
    st.sampled_from(OBJECTIVES[:3]),
)
def test_lists_of_images(content, objective):
    files = {"labels.csv": content, "a.png": PICTURES[0], "b.png": PICTURES[0]}
    with damage.folder(files) as root:
        damage.read(formats.read, root, 0, "white", objective)


@pytest.fixture(scope="module")
def arrow_files():
    """(a Parquet file, an Arrow file of Hugging Face) of a few images."""
    pyarrow = pytest.importorskip("pyarrow")
    parquets = pytest.importorskip("pyarrow.parquet")
    rows = pyarrow.table({"image": [{"bytes": PICTURES[0], "path": None}] * 3, "label": [0, 1, 0]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    parquets.write_table(rows, parquet)
    with pyarrow.ipc.new_stream(arrow, rows.schema) as stream:
        stream.write_table(rows)
    return parquet.getvalue(), arrow.getvalue()


@given(data=st.data())
def test_parquet_and_arrow_files(arrow_files, data):
    parquet, arrow = arrow_files
    kind = data.draw(st.sampled_from(["parquet", "arrow"]))
    content = data.draw(damage.damaged([parquet if kind == "parquet" else arrow]))
    with damage.folder({f"a.{kind}": content}) as root:
        damage.read(formats.read, root / f"a.{kind}", 0, "white", "classification")
