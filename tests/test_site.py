"""The documentation: links, pages that are made of the code, and the whole site."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from docs.hooks import links, reference
from fnas_jax import __main__ as program
from fnas_jax.core import config
from tests.oldest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def texts():
    """(file, text without its code) of every page and every cell of text of the notebooks."""
    for page in PAGES:
        yield page, re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for notebook in NOTEBOOKS:
        for cell in json.loads(notebook.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                yield notebook, "".join(cell["source"])


def test_links_between_files_of_the_repository_lead_somewhere():
    found = [(file, m[1]) for file, text in texts() for m in LINK.finditer(text)]
    inside = [(file, target) for file, target in found if not re.match("[a-z]+:", target)]
    assert len(inside) > 100
    missing = [f"{f.name}: {t}" for f, t in inside if not (f.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("file", "text", "mended"),
    [
        ("README.md", "[a](docs/fnas.md#the-critic)", "[a](fnas.md#the-critic)"),
        ("README.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        ("CONTRIBUTING.md", "([a](docs/guides/add.md))", "([a](guides/add.md))"),
        ("docs/fnas.md", "[`a`](../README.md#x)", "[`a`](index.md#x)"),
        ("docs/guides/add.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("docs/guides/add.md", "[a](../data.md) [b](tpu.md)", "[a](../data.md) [b](tpu.md)"),
        ("docs/start.md", "[a](notebooks/x.ipynb)", "[a](notebooks/x.md)"),
        ("docs/start.md", "[a](#b) [c](https://d.org/README.md)", None),
        ("docs/start.md", "`[a](../README.md)`\n```\n[a](../README.md)\n```\n", None),
    ],
)
def test_links_of_files_become_links_of_pages(file, text, mended):
    assert links.mend(text, file) == (text if mended is None else mended)


def test_the_configuration_page_has_every_key_with_its_default():
    rows = [line.split(" | ") for line in reference.configuration().splitlines() if "`" in line]
    shown = {row[0].strip("| `"): row[1].strip("`") for row in rows if len(row) == 4}
    assert shown == {name: repr(key.default) for name, key in config.all_keys().items()}


def test_signs_of_markdown_stay_in_cells():
    text = reference.table(["a"], [[reference.plain("x|y *z* <p> `c` a_b [d]")]])
    assert text.endswith("| x\\|y \\*z\\* &lt;p> \\`c\\` a\\_b \\[d] |\n")


def test_the_page_of_commands_has_what_each_says_of_itself():
    sections = re.split(r"^## (.+)$", reference.commands(), flags=re.MULTILINE)
    said = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(said) == list(program.COMMANDS)
    assert all("--verbose" in text and text.count("```") == 2 for text in said.values())
    assert "--plan_price" in said["search"]
    assert "--artefact" in said["latency"]
    assert not any("--config.search.budget" in text for text in said.values())


def test_the_readme_names_every_command():
    table = (ROOT / "README.md").read_text().partition("\n## Commands\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `fnas-jax ([\w-]+)`", table, re.MULTILINE) == list(program.COMMANDS)


def named():
    """(page, command, its arguments) of every command that a page names."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for match in re.finditer(r"\bfnas-jax ([a-z][a-z-]*)((?: +[^\s`&|;]+)*)", text):
            yield page.name, match[1], match[2].partition(" #")[0].split()
        for match in re.finditer(r"python -m fnas_jax\.([a-z_]+)((?: +[^\s`&|;]+)*)", text):
            command = {"main": "search"}.get(match[1], match[1].replace("_", "-"))
            yield page.name, command, match[2].partition(" #")[0].split()


def test_pages_name_commands_and_flags_that_there_are():
    helps = {name: reference.help_of(name) for name in program.COMMANDS}
    wrong, flags = [], 0
    for page, command, arguments in named():
        for argument in [a for a in arguments if a.startswith("--") and a != "--help"]:
            name = argument.partition("=")[0]
            flags += 1
            if command not in helps or not (
                name.startswith("--config") or re.search(rf"{name}\b", helps[command])
            ):
                wrong.append(f"{page}: fnas-jax {command} {argument}")
    assert flags > 100
    assert wrong == []


def test_pages_name_keys_and_configurations_that_there_are():
    keys, files = config.all_keys(), {path.stem for path in (ROOT / "experiments").glob("*.py")}
    wrong = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"--config\.([a-z_0-9.]*[a-z_0-9])(=?)", text):
            if match[1] not in keys:
                wrong.append(f"{page.name}: {match[0]}")
        for match in re.finditer(r"--config=(?:experiments/)?([a-z_0-9]+)", text):
            if match[1] not in files:
                wrong.append(f"{page.name}: {match[0]}")
    assert wrong == []


def test_every_page_stands_in_the_navigation_once():
    """A build would say so, too, but is slow."""
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"([\w/]+\.md)$", nav, re.MULTILINE)
    pages = [links.place(p.relative_to(ROOT).as_posix()) for p in [*PAGES, *NOTEBOOKS]]
    assert sorted(listed) == sorted(pages)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does, where a broken link or anchor fails."""
    missing = [
        m for m in ("jupytext", "material", "mkdocstrings") if not importlib.util.find_spec(m)
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")
    }


@pytest.mark.slow
def test_the_site_has_its_pages(site):
    assert {
        "index.html",
        "guides/tpu.html",
        "fnas.html",
        "notebooks/quickstart.html",
    } <= site.keys()
    assert "changelog.html" in site
    assert 'id="fnas_jax.api.search"' in site["reference/api.html"]
    assert "search.budget" in site["reference/configuration.html"]


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    loads = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]*)"')
    assert {address for text in site.values() for address in loads.findall(text)} == set()


@pytest.mark.slow
def test_lists_and_tables_are_not_left_as_text(site):
    """Markdown of the site asks for an empty line before a list or a table, GitHub's does not."""
    left = [
        f"{name}: {paragraph[:80]}"
        for name, text in site.items()
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.DOTALL)
        if re.search(r"\n\s*(?:[-*] |\d+\. |\| )", re.sub(r"<code>.*?</code>", "", paragraph))
    ]
    assert left == []
    assert [name for name, text in site.items() if re.search(r"<p>\s*```", text)] == []
