"""Other people's optimisers on the tables, one trial after another, as their users run them.

`optuna_tpe` is Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) over all
decisions together, its default since Optuna 5; `optuna_tpe_independent` takes each decision by
itself, as the default was before. The first trials of `optuna_tpe_warm` are the ten best of those
rows of the other task that every warm method knows with this seed. `smac` is the facade of SMAC3
for hyper-parameters, a random forest and local search (Lindauer et al., JMLR 2022), after ten
architectures of its own design, as many as TPE draws; its default would be 60 here. Decisions are
categorical, all else is as the packages have it, and nothing is tuned. A network that is asked for
again costs nothing and tells the optimiser its first reading again.

Because trials are slow, a search ends when it has trained one of the top 0.1%, after `EVALUATIONS`
networks, or after `TRIALS` trials: of regret and of the very best nothing is said.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import table_search
from experiments.benchmarks.presets import source
from experiments.benchmarks.progress import followed
from experiments.benchmarks.table_search import REGRET_AT, Ground, Outcome
from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.tables import Table

EVALUATIONS, TRIALS = 300, 600  # of a search at most; trials count known networks, too
FIRST = 10  # trials before a model is asked; those of a warm one are rows of the other task


class Optimiser(NamedTuple):
    """A search under way; it has a state of its own."""

    ask: Callable[[], np.ndarray]  # the next architecture [T]
    tell: Callable[[float | None], None]  # its accuracy; None: it failed


class Rival(NamedTuple):
    """An optimiser, and what it needs."""

    start: Callable[[Space, int, np.ndarray], Optimiser]  # (space, seed, first trials [F, T])
    package: str  # that has to be there
    extra: str  # which brings it
    warm: bool = False


def start_tpe(multivariate: bool, space: Space, seed: int, first: np.ndarray) -> Optimiser:
    """Optuna's TPE sampler with a study in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(multivariate=multivariate, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    names = [f"decision_{t}" for t in range(len(space.cardinalities))]
    choices = {
        name: optuna.distributions.CategoricalDistribution(list(range(k)))
        for name, k in zip(names, space.cardinalities, strict=True)
    }
    for arch in first:
        study.enqueue_trial(dict(zip(names, map(int, arch), strict=True)))
    asked: list[Any] = []

    def ask() -> np.ndarray:
        asked.append(study.ask(choices))
        return np.array([asked[-1].params[name] for name in names], np.int32)

    def tell(accuracy: float | None) -> None:
        state = None if accuracy is not None else optuna.trial.TrialState.FAIL
        study.tell(asked.pop(), accuracy, state)

    return Optimiser(ask, tell)


def start_smac(space: Space, seed: int, first: np.ndarray) -> Optimiser:
    """SMAC3, which writes to a folder that ends with the process."""
    import ConfigSpace
    import smac
    from smac.runhistory import TrialValue

    assert not len(first), "no warm start of it is measured"
    names = [f"decision_{t}" for t in range(len(space.cardinalities))]
    choices = ConfigSpace.ConfigurationSpace(seed=seed)
    for name, k in zip(names, space.cardinalities, strict=True):
        choices.add(ConfigSpace.Categorical(name, list(range(k))))
    facade = smac.HyperparameterOptimizationFacade
    folder = tempfile.TemporaryDirectory()
    scenario = smac.Scenario(
        choices,
        n_trials=10**4,  # the end is not its business
        deterministic=True,
        seed=seed,
        output_directory=pathlib.Path(folder.name),
    )
    model = facade(
        scenario,
        lambda config, seed=0: 0.0,  # never called: trials are asked for and told
        initial_design=facade.get_initial_design(scenario, n_configs=FIRST),
        logging_level=logging.ERROR,
        overwrite=True,
    )
    asked: list[Any] = []

    def ask() -> np.ndarray:
        asked.append(model.ask())
        return np.array([asked[-1].config[name] for name in names], np.int32)

    def tell(accuracy: float | None) -> None:
        assert folder  # stays as long as the search
        cost = 1.0 if accuracy is None else 1.0 - accuracy
        model.tell(asked.pop(), TrialValue(cost=cost))

    return Optimiser(ask, tell)


def _tpe(multivariate: bool, warm: bool = False) -> Rival:
    return Rival(functools.partial(start_tpe, multivariate), "optuna", "tpe", warm=warm)


RIVALS = {
    "optuna_tpe": _tpe(True),
    "optuna_tpe_independent": _tpe(False),
    "optuna_tpe_warm": _tpe(True, warm=True),
    # A trial takes half a second.
    "smac": Rival(start_smac, "smac", "smac"),
}


def check(methods: Iterable[str]) -> None:
    """Raises UserError where a rival's package is missing."""
    for method in methods:
        rival = RIVALS.get(method)
        if rival and importlib.util.find_spec(rival.package) is None:
            raise UserError(
                f"the method {method} needs the package {rival.package}, which is missing;"
                f" pip install fnas-jax[{rival.extra}] brings it"
            )


class Trial(NamedTuple):
    """What an evaluation said."""

    accuracy: Array  # [] float32 the reading
    ok: Array  # [] bool
    fresh: Array  # [] bool: it was paid for
    top: Array  # [] bool: it is one of the top 0.1%
    seconds: Array  # [] float32 that its training took by the table; 0 if it was known


def search(
    optimiser: Optimiser, known: Any, step: Callable[[Any, np.ndarray], tuple[Any, Trial]]
) -> tuple[float, int, float]:
    """(evaluations until the first of the top, evaluations in all, training seconds until then).

    "Then" is at the first of the top: both are infinite where none is found.
    `step` evaluates an architecture, `known` is what an evaluator knows at first.
    """
    evaluations, seconds = 0, 0.0
    for _ in range(TRIALS):
        arch = optimiser.ask()
        known, trial = step(known, arch)
        evaluations, seconds = evaluations + int(trial.fresh), seconds + float(trial.seconds)
        if trial.fresh and trial.ok and trial.top:
            return float(evaluations), evaluations, seconds
        if evaluations >= EVALUATIONS:
            break
        optimiser.tell(float(trial.accuracy) if trial.ok else None)
    return np.inf, evaluations, np.inf


def evaluate(on: Ground, key: Array, known: Any, arch: Array) -> tuple[Any, Trial]:
    """One architecture [T] by the evaluator of a seed's key."""
    known, m = on.evaluator_of(key).evaluate(known, arch[None], jnp.ones(1, bool), key)
    row = on.where.row_of(arch[None])[0]
    top = on.top[row] & (row >= 0)
    return known, Trial(m.accuracy[0], m.ok[0], m.fresh[0], top, m.seconds[0])


def measure(
    table: Table, rival: Rival, seeds: int, noisy: bool = True, other: Table | None = None
) -> Outcome:
    """Runs `seeds` searches one after another; a warm one knows rows of `other`.

    Seconds are without compilation of the look-ups.
    """
    on, keys = table_search.ground(table, noisy), table_search.seed_keys(seeds)
    compiled = jax.jit(functools.partial(evaluate, on))
    nothing = on.evaluator_of(keys[0]).init()
    compiled(keys[0], nothing, table.archs[0])
    found, start = [], time.perf_counter()
    for seed in followed(rival.package, range(seeds), lambda seed: f"seed {seed} of {table.name}"):
        key = keys[seed]
        first = np.zeros((0, len(table.space.cardinalities)), np.int32)
        if rival.warm and other is not None:
            first = best_known(other, key)
        optimiser = rival.start(table.space, seed, first)
        found.append(search(optimiser, nothing, functools.partial(compiled, key)))
    seconds = time.perf_counter() - start
    hits, evaluations, times = (np.array(x) for x in zip(*found, strict=True))
    unknown = np.full(seeds, np.nan)
    regret = np.full((seeds, len(REGRET_AT)), np.nan)
    known = None if table.seconds is None else times
    return Outcome(hits, unknown, regret, evaluations, seconds, unknown, unknown, {}, known)


def best_known(other: Table, key: Array) -> np.ndarray:
    """[FIRST, T] the best first of the rows of the other task that this seed knows."""
    known = table_search.drawn(source(other), key)
    best = np.argsort(-np.asarray(known.reward), kind="stable")[:FIRST]
    return np.asarray(known.archs)[best]
