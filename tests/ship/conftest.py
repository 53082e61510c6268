import pytest

from tests.ship import winners


@pytest.fixture(scope="session")
def data_file(tmp_path_factory):
    """The path of an .npz file with images in colours."""
    return str(winners.write_npz(tmp_path_factory.mktemp("data") / "fruit.npz"))
