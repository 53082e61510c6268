"""Sets of TensorFlow Datasets on disk, damaged: they are read, or told in one sentence."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tensorflow_datasets")

from fnas_jax.tasks.readers import tfds
from tests.fuzz import damage, test_kept
from tests.tasks.readers import test_tfds as of_tfds

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet")]
PICKLE = pickle.dumps(ValueError)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a small set, by their paths."""
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_tfds.ColourTensor, "SIZES", {"train": 6, "test": 2})
        of_tfds.prepare(of_tfds.ColourTensor, folder)
    return test_kept.files_in(folder)


def test_a_whole_set_is_read(whole):
    """Of one that is refused, no part would be tried."""
    with damage.folder(whole) as root:
        assert len(tfds.read_tfds("colour_tensor", str(root), 0).train.images) == 6


@given(st.data())
def test_sets(whole, data):
    files = data.draw(test_kept.damaged_files(whole))
    if data.draw(st.integers(0, 9)) == 0:
        files |= {data.draw(st.sampled_from(sorted(whole))): PICKLE}
    with damage.folder(files) as root:
        damage.read(tfds.read_tfds, "colour_tensor", str(root), 0)
