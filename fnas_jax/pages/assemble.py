"""The page about one run, and the page about several."""

from __future__ import annotations

from collections.abc import Sequence

from fnas_jax.core import workdir
from fnas_jax.pages import figures, knowledge, lists, network, setup, summary
from fnas_jax.pages.elements import (
    Keyed,
    Markup,
    Table,
    folded,
    join,
    paragraph,
    section,
    table,
    tag,
)
from fnas_jax.pages.page import figures as drawn
from fnas_jax.pages.page import page
from fnas_jax.plots import best_so_far, overlays
from fnas_jax.plots.data import Run


def one(run: Run) -> str:
    """The page of a run, finished or not."""
    there = sections(run)
    links = tag("nav", join([tag("a", title, href=f"#{key}") for title, key, _ in there]))
    title = f"{run.config.method.name} on {run.config.task.name}"
    body = [section(name, content, key) for name, key, content in there]
    return page(title, [summary.shown(run), links, *body])


def sections(run: Run) -> list[tuple[str, str, Markup]]:
    """(title, key, content) of what there is to say."""
    found = [
        ("Search", "search", drawn(figures.search(run))),
        ("Best so far" if run.result is None else "Winner", "winner", winner(run)),
        ("Trade-offs", "tradeoffs", drawn(figures.trade_offs(run))),
        ("What was learnt", "learnt", learnt(run)),
        ("Trials", "trials", lists.trials(run) if not run.unread else paragraph(f"{run.unread}.")),
        ("Time", "time", join([drawn(figures.time(run)), counted(run)])),
        ("Set-up", "setup", set_up(run)),
        ("Commands", "commands", setup.commands(run)),
        (
            "Knowledge store, all runs",
            "store",
            knowledge.shown(workdir.knowledge_folder(run.folder, run.config)),
        ),
    ]
    return [(title, key, body) for title, key, body in found if body != ""]


def winner(run: Run) -> Markup:
    """The winner's figures and layers; of a search that goes on, the best so far."""
    if run.result is None:
        return best_yet(run)
    found = run.result["best"]
    if found is None:
        return paragraph("No architecture gave a result.")
    again = lists.finalists(run, run.result)
    return join(
        [
            summary.winners(run, run.result),
            network.shown(run, found["arch"], found["description"]),
            titled("On test images", lists.on_test_images(run.result)),
            titled("Finalists, trained again on equal terms", again),
        ]
    )


def best_yet(run: Run) -> Markup:
    """The network that is the best so far."""
    curve = best_so_far.curve(run.trials, "evaluations")
    if not len(curve.x) or run.space is None:
        return Markup("")
    arch = run.trials.archs[curve.holder[-1]]
    words = paragraph("The best so far, before finals and its own training.", "words")
    return join([words, network.shown(run, arch.tolist(), run.space.describe(arch))])


def titled(title: str, body: Markup) -> Markup:
    """A part of a section; '' where there is nothing in it."""
    return Markup("") if body == "" else join([tag("h3", title), body])


def learnt(run: Run) -> Markup:
    """Figures of the method; the course of a policy of many decisions is folded."""
    course = drawn(figures.course(run))
    if len(run.names) > figures.LEAST_GROUPS:
        course = folded("The policy over the search, choice by choice", course)
    return join([drawn(figures.learnt(run)), course])


def counted(run: Run) -> Markup:
    """Counts and times by result.json."""
    return (
        Markup("") if run.result is None else folded("Counts and seconds", lists.counts(run.result))
    )


def set_up(run: Run) -> Markup:
    """Data, configuration, versions."""
    return join(
        [
            titled("Data", setup.data(run)),
            titled("Configuration", setup.config(run)),
            titled("Versions", setup.versions(run)),
        ]
    )


def several(runs: list[Run]) -> str:
    """The page that compares runs. Raises UserError where they are about different things."""
    overlays.same_measure(runs)
    task = runs[0].config.task.name
    title = f"{len(runs)} searches on {task}"
    found = [
        ("Runs", "runs", compared(runs)),
        ("Together", "together", drawn(figures.together(runs))),
        ("One by one", "each", join([folded(run.label, short(run)) for run in runs])),
    ]
    links = tag("nav", join([tag("a", name, href=f"#{key}") for name, key, _ in found]))
    body = [section(name, content, key) for name, key, content in found]
    return page(title, [tag("h1", title), links, *body])


def compared(runs: Sequence[Run]) -> Markup:
    """A row for each run."""
    metric = runs[0].measure.name
    rows = []
    for run in runs:
        result = run.result or {}
        found = (result.get("winner") or {}).get("accuracy")
        seconds = summary.seconds(run)
        rows.append(
            (
                run.label,
                str(run.config.method.name),
                int(run.config.seed),
                summary.state(run)[0],
                summary.counts(run)["trained"],
                summary.best_value(run),
                None if found is None else run.measure.sign * found,
                _cost(run),
                None if seconds is None else Keyed(summary.clock(seconds), seconds),
            )
        )
    head = (
        "run",
        "method",
        "seed",
        "state",
        "evaluated",
        f"best {metric}",
        f"final {metric}",
        "MFLOPs",
        "time",
    )
    used = [i for i in range(len(head)) if any(row[i] not in (None, "") for row in rows)]
    shown = [[row[i] for i in used] for row in rows]
    return table(Table([head[i] for i in used], shown, sortable=True))


def _cost(run: Run) -> float | None:
    result = run.result or {}
    return ((result.get("winner") or result.get("best")) or {}).get("mflops")


def short(run: Run) -> Markup:
    """What the page of several says of each; its own page has the rest."""
    unread = paragraph(f"{run.unread}." if run.unread else "")
    return join([summary.shown(run), unread, winner(run), setup.config(run), setup.commands(run)])
