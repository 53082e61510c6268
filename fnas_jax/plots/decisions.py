"""Which decisions matter: by how much a forest predicts worse without knowing them.

Permutation importance (Breiman, "Random Forests", Machine Learning 2001), of held-out networks.
"""

from __future__ import annotations

import html
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from fnas_jax.plots import data, style
from fnas_jax.plots.data import Run

LEAST = 20  # networks, of which a forest can say anything
MOST = 2000  # networks of which a forest learns, so that a page is there soon
FOLDS, TREES, REPEATS, SHOWN = 3, 60, 3, 30
PREDICTS = 0.1  # R2, below which bars would say nothing


class Importance(NamedTuple):
    """Of T decisions."""

    mean: np.ndarray  # [T] loss of R2 of held-out ranks, where the decision is shuffled
    std: np.ndarray  # [T] over folds and shuffles
    r2: float  # of held-out ranks by the forest; near 0 or below, it has learnt nothing


def permuted(archs: np.ndarray, reward: np.ndarray, seed: int = 0) -> Importance:
    """The importance of the decisions of `archs` [n, T] int for the rank of `reward` [n].

    Ranks, because a few networks that failed to train would be all that a forest learns of rewards.
    Forests see choices as categories; each fold is judged by the networks that it has not seen.
    """
    from sklearn.ensemble import RandomForestRegressor  # half a second, for this figure alone
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(seed)
    if len(archs) > MOST:
        chosen = rng.permutation(len(archs))[:MOST]
        archs, reward = archs[chosen], reward[chosen]
    ranks = np.searchsorted(np.sort(reward), reward) / len(reward)
    losses, scores = [], []
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(archs):
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed)
        model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), forest)
        model.fit(archs[train], ranks[train])
        # Of equal ones R2 would be 1, though there is nothing to predict.
        told = np.ptp(ranks[test]) > 0
        scores.append(r2_score(ranks[test], model.predict(archs[test])) if told else 0.0)
        found = permutation_importance(
            model, archs[test], ranks[test], n_repeats=REPEATS, random_state=seed
        )
        losses.append(found.importances)
    every = np.concatenate(losses, axis=1)
    return Importance(every.mean(axis=1), every.std(axis=1), float(np.mean(scores)))


def importance(run: Run) -> go.Figure:
    """Bars of the decisions, the most important first.

    Raises UserError of few networks, and of those that a forest cannot tell apart.
    """
    t = run.trials
    rows = np.flatnonzero(t.measured)
    if len(rows) < LEAST:
        raise data.lacking(run, f"{len(rows)} measured networks", f"importances need {LEAST}")
    if np.ptp(t.reward[rows]) == 0:
        raise data.lacking(run, "the same reward of all networks", "importances need others")
    known = permuted(t.archs[rows], t.reward[rows])
    if known.r2 < PREDICTS:
        raise data.lacking(
            run,
            "results of which a forest learns nothing about networks that it has not seen"
            f" (R2 of ranks {known.r2:.2f})",
            f"importances need {PREDICTS:g}",
        )
    order = np.argsort(-known.mean, kind="stable")[:SHOWN]
    title = f"loss of R2, which is {known.r2:.2f}, where the decision is shuffled"
    found = style.figure(title, height=130 + 20 * len(order))
    found.add_bar(
        y=[html.escape(run.names[i]) for i in order],
        x=known.mean[order],
        error_x={"array": known.std[order], "color": style.GREY, "thickness": 1},
        orientation="h",
        marker={"color": style.BLUE},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    found.update_yaxes(autorange="reversed", tickfont={"size": 11})
    return found
