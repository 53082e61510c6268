"""What a knowledge store holds, of all runs that share it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, store
from fnas_jax.knowledge.history import Group
from fnas_jax.pages.elements import Markup, Table, paragraph, table


def shown(folder: pathlib.Path) -> Markup:
    """A row for each task, protocol and space of the store in `folder`; '' where there is none."""
    if not store.exists(folder):
        return Markup("")
    try:
        with store.existing(folder) as connection:
            groups = history.groups(connection)
    except UserError as error:
        return paragraph(f"It cannot be read: {error}")
    head = ("task", "protocol", "space", "measured", "failed", "predicted", "runs")
    protocols = differences(groups)
    rows = [
        (
            group.task,
            protocols[group.protocol],
            f"{group.space} {group.space_key}".strip(),
            *(str(n) for n in (group.measured, group.failed, group.predicted, group.runs)),
        )
        for group in groups
    ]
    return table(Table(head, rows))


def differences(groups: Sequence[Group]) -> dict[str, str]:
    """For each protocol its digest, and the settings that others of the same task have otherwise.

    Protocols of earlier versions are unknown.
    """
    flat = {g.protocol: config_lib.flatten(json.loads(g.settings or "{}")) for g in groups}
    words = {}
    for own, settings in flat.items():
        tasks = {g.task for g in groups if g.protocol == own}
        rivals = {g.protocol for g in groups if g.task in tasks and g.protocol} - {own}
        told = [
            f"{name}={value}"
            for name, value in settings.items()
            if any(flat[rival].get(name) != value for rival in rivals)
        ]
        label = own or "not written down"
        words[own] = f"{label}: {', '.join(told)}" if told else label
    return words
