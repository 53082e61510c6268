"""Links between files of the repository, as links between pages of the site."""

from __future__ import annotations

import os
import re

# Files above docs/ that are pages, too, and notebooks, which become pages.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE",
}
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")
_OUTSIDE = re.compile(r"[a-z]+:|/")  # an address, a path from the root
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def mend(text: str, file: str) -> str:
    """`text` of `file` (a path in the repository) with links that hold in the site.

    There a file below docs/ lies where it lies without that, and those above it by `PAGES`.
    Addresses, and what is code, stay as they are.
    """
    pieces = _CODE.split(text)
    pieces[::2] = [_LINK.sub(lambda match: _link(match, file), piece) for piece in pieces[::2]]
    return "".join(pieces)


def _link(match: re.Match[str], file: str) -> str:
    target, anchor = match[2], match[3] or ""
    if _OUTSIDE.match(target):
        return match[0]
    wanted = os.path.normpath(os.path.join(os.path.dirname(file), target))
    start = os.path.dirname(place(file)) or "."
    return f"]({os.path.relpath(place(wanted), start)}{anchor})"


def place(file: str) -> str:
    """Where a file of the repository lies in the site."""
    return re.sub(r"\.ipynb$", ".md", PAGES.get(file, file.removeprefix("docs/")))
