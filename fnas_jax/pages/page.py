"""A page of HTML that needs no other file and loads nothing: style, scripts and figures within."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fnas_jax.pages.elements import Markup, join, tag, text

MADE_BY = '<meta name="generator" content="fnas_jax">'  # by which a page of ours is known
HERE = pathlib.Path(__file__).parent


class Figure(NamedTuple):
    """A figure with its heading and what to see in it."""

    title: str
    words: str
    content: go.Figure


def figure(content: Figure) -> Markup:
    """Its place in the page, and its numbers, which a script of the page draws."""
    # plotly escapes <, > and / within texts, so that none can end the element.
    numbers = Markup(content.content.to_json().replace("</", "<\\/"))
    height = content.content.layout.height
    place = Markup(f'<div class="figure" style="min-height:{int(height or 400)}px"></div>')
    kept = tag("script", numbers, type="application/json")
    words = [tag("h3", content.title), tag("p", content.words, class_="words")]
    return tag("div", join([*words, place, kept]), class_="plot")


def figures(found: Sequence[Figure]) -> Markup:
    """Several figures, one below the other; '' where there is none."""
    return join([figure(one) for one in found])


def page(title: str, body: Sequence[object]) -> str:
    """The page. No other script runs in it than ours, whatever texts it shows."""
    scripts = [_plotly(), (HERE / "page.js").read_text(encoding="utf-8")]
    # Of other places nothing is loaded: the browser itself refuses to.
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline';"
        " img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )
    style = (HERE / "page.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            MADE_BY,
            tag("title", title),
            f"<style>\n{style}</style>\n</head>\n<body>\n<main>",
            text(join(body)),
            "</main>",
            *(f"<script>{script}</script>" for script in scripts),
            "</body>\n</html>\n",
        ]
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@functools.cache
def _plotly() -> str:
    """plotly.js with the ends of lines that browsers count with."""
    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
