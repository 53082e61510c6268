"""What mkdocs.yml adds to the pages in docs/: files from above it, notebooks, references."""

from __future__ import annotations

import pathlib
from typing import Any

import jupytext
import links
import reference
from mkdocs.structure.files import File

ADDED = {
    "reference/configuration.md": reference.configuration,
    "reference/commands.md": reference.commands,
}
ROOT = pathlib.Path(__file__).resolve().parents[2]


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are no files of docs/."""
    made = {page: (ROOT / file).read_text() for file, page in links.PAGES.items()}
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        made[f"notebooks/{notebook.stem}.md"] = page_of(notebook)
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def page_of(notebook: pathlib.Path) -> str:
    """A notebook as a page: its text, its code and, at the end, where the file is."""
    content = jupytext.read(notebook)
    plain = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "-all"}
    content.metadata = {"jupytext": plain}
    link = f'<a href="{notebook.name}" download>This page as a notebook</a>'
    return f"{jupytext.writes(content, fmt='md')}\n\n{link}\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Mends links, which say where files of the repository are, and adds what is made of code."""
    sources = {page: file for file, page in links.PAGES.items()}
    uri = page.file.src_uri
    text = links.mend(markdown, sources.get(uri, f"docs/{uri}"))
    return f"{text}\n\n{ADDED[uri]()}" if uri in ADDED else text
