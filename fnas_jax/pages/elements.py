"""Pieces of HTML. All text is escaped here, and nowhere else."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple


class Markup(str):
    """HTML that is safe as it is: made by these functions, of escaped text."""

    __slots__ = ()


class Keyed(NamedTuple):
    """A text that is sorted by a number."""

    text: str
    key: float


Cell = str | float | int | Keyed | None


def text(value: object) -> Markup:
    """`value` as text, escaped, unless it is `Markup`."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(parts: Sequence[object]) -> Markup:
    """The parts one after another; empty ones are left out."""
    return Markup("\n".join(text(part) for part in parts if part != ""))


def tag(name: str, body: object = "", **attributes: str) -> Markup:
    """An element; `class_` and `data_x` are the attributes class and data-x."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{text(body)}</{name}>")


def paragraph(words: str, class_: str = "") -> Markup:
    """A paragraph, '' where there are no words."""
    if not words:
        return Markup("")
    return tag("p", words, class_=class_) if class_ else tag("p", words)


def code(command: str) -> Markup:
    """A block of commands."""
    return tag("pre", tag("code", command))


def section(title: str, body: object, key: str = "") -> Markup:
    """A section with its heading; '' where there is nothing in it. `key`: what links lead to."""
    if body == "":
        return Markup("")
    heading = tag("h2", title)
    return tag("section", join([heading, body]), **({"id": key} if key else {}))


def folded(title: str, body: object) -> Markup:
    """What is seen when its title is clicked; '' where there is nothing."""
    return Markup("") if body == "" else tag("details", join([tag("summary", title), body]))


def number(value: float | None, digits: int = 4) -> str:
    """A number for people; "" where it is unknown."""
    return "" if value is None or math.isnan(value) else f"{value:.{digits}g}"


def capital(words: str) -> str:
    """With a capital letter."""
    return words[:1].upper() + words[1:]


class Table(NamedTuple):
    """Rows under the names of columns; numbers are sorted as such where it is `sortable`."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False


def table(content: Table) -> Markup:
    """The table, within a box that scrolls sideways on narrow screens; '' without rows."""
    if not content.rows:
        return Markup("")
    head = join([_head(content, i) for i in range(len(content.head))])
    rows = [tag("tr", join([_cell(cell) for cell in row])) for row in content.rows]
    inner = join([tag("thead", tag("tr", head)), tag("tbody", join(rows))])
    names = {"class_": "sortable"} if content.sortable else {}
    return tag("div", tag("table", inner, **names), class_="scroll", tabindex="0")


def _head(content: Table, i: int) -> Markup:
    """The head of column `i`; over numbers it stands as they do, to the right."""
    numbers = all(not isinstance(row[i], str) for row in content.rows)
    return tag("th", content.head[i], scope="col", **({"class_": "number"} if numbers else {}))


def _cell(value: Cell) -> Markup:
    if isinstance(value, Keyed):
        return tag("td", value.text, class_="number", data_key=repr(value.key))
    if value is None or isinstance(value, float | int):
        shown = number(value) if isinstance(value, float | None) else str(value)
        key = "" if value is None or not math.isfinite(value) else repr(value)
        return tag("td", shown, class_="number", data_key=key)
    return tag("td", value)


def facts(rows: Sequence[tuple[str, object]]) -> Markup:
    """Names and what they are, one below the other; those without are left out."""
    known = [(name, value) for name, value in rows if value not in ("", None)]
    if not known:
        return Markup("")
    return tag("dl", join([join([tag("dt", n), tag("dd", v)]) for n, v in known]))
