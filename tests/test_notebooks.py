"""The notebooks are kept without what they print, and run from their first cell to their last."""

import importlib.util
import json
import re

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.oldest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
# What the tests say instead of the numbers of a notebook's first cell.
SMALL = {
    "quickstart": {"FOLDER": "images", "SIDE": 8, "BUDGET": 4, "STEPS": 20},
    "compare_methods": {"SEEDS": 3, "EVALUATIONS": 8, "METHODS": ["random", "local"]},
    "transfer": {"FIRST": 24, "SECOND": 2, "SEEDS": [0]},
}


def is_settings(cell):
    return "settings" in cell["metadata"].get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_what_they_print(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [c["outputs"] for c in code] == [[]] * len(code)
    assert {c["execution_count"] for c in code} == {None}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_numbers_stand_in_one_cell(path):
    (settings,) = [c for c in json.loads(path.read_text())["cells"] if is_settings(c)]
    names = re.findall(r"^([A-Z]+) = ", "".join(settings["source"]), re.MULTILINE)
    assert names
    assert set(SMALL[path.stem]) <= set(names)


def run(name, folder, monkeypatch):
    """The code cells of a notebook, run in `folder` with the numbers of SMALL."""
    missing = [m for m in ("nbclient", "ipykernel", "pandas") if not importlib.util.find_spec(m)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: pip install -e '.[notebook]'")
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    for cell in filter(is_settings, notebook.cells):
        cell.source += "".join(f"\n{key} = {value!r}" for key, value in SMALL[name].items())
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=1200, resources=where).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """The kinds of what a cell shows."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def printed(cell):
    """What a cell prints, and the text of what it shows."""
    return "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
        if output.get("name") != "stderr"
    )


@pytest.mark.slow
def test_the_quick_start_exports_a_network_for_a_folder_of_images(tmp_path, monkeypatch):
    digits = load_digits(n_class=3)
    for i, (pixels, digit) in enumerate(zip(digits.images[:240], digits.target, strict=False)):
        file = tmp_path / "images" / "abc"[digit] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(file)
    cells = run("quickstart", tmp_path, monkeypatch)
    assert "(240, 8, 8, 3)" in printed(cells[2])
    assert "final accuracy" in printed(cells[3])
    assert PLOTLY in kinds(cells[3]) & kinds(cells[4])
    assert re.search(r"^[abc] -> [abc] \(", printed(cells[-2]), re.MULTILINE)
    assert printed(cells[-1]).endswith("['flax', 'jax', 'safetensors']")
    assert (tmp_path / "runs" / "quickstart" / "shipped" / "flax" / "model.py").exists()


@pytest.mark.slow
def test_methods_are_compared_on_a_table_that_the_notebook_makes(tmp_path, monkeypatch):
    cells = run("compare_methods", tmp_path, monkeypatch)
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 433
    assert PLOTLY in kinds(cells[-3])
    assert {"random", "local"} < set(re.findall(r"\w+", printed(cells[-2])))
    assert "'random': 0.5," in printed(cells[-1])


@pytest.mark.slow
def test_a_second_search_starts_from_the_first_ones_store(tmp_path, monkeypatch):
    cells = run("transfer", tmp_path, monkeypatch)
    (drawn,) = [o["data"][PLOTLY] for o in cells[-2].outputs if PLOTLY in o.get("data", {})]
    lines = [trace["name"] for trace in drawn["data"] if trace.get("name")]
    assert lines == ["fnas, a store of its own", "fnas, store runs/transfer/store"]
    assert re.findall(r"^(\w+), after  1: 0\.", printed(cells[-1]), re.MULTILINE) == [
        "cold",
        "warm",
    ]
    lines = (tmp_path / "runs" / "transfer" / "warm-0" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["foreign_rows"] == 24
    lines = (tmp_path / "runs" / "transfer" / "cold-0" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["foreign_rows"] == 0
