"""Search on a table instead of on a machine: an evaluation is a look-up, a search takes seconds.

Evaluations are counted per distinct network. The first reading of a network stays: asking again,
in any of its forms, costs nothing and returns the same number. Where the table has training times,
`Metrics.seconds` of a first reading is that of its row: what the training would have taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax import objectives
from fnas_jax.core import limits as limits_lib
from fnas_jax.core import reward as rewards
from fnas_jax.core.limits import NONE as NO_LIMITS
from fnas_jax.core.limits import Limits, within
from fnas_jax.core.rows import first_equal
from fnas_jax.core.types import COSTS, Array, Metrics, UserError
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import protocols, table_costs, table_features, table_index, tables
from fnas_jax.tasks.base import Evaluator, Judged, Task
from fnas_jax.tasks.plain_table import Asked
from fnas_jax.tasks.table_index import Index
from fnas_jax.tasks.tables import Table

RewardFn = Callable[[Array, Array, Array, Array], Array]
OVER_LIMIT = -3


class Known(NamedTuple):
    """What has been read so far, per distinct network."""

    row: Array  # [networks] int32 row that was read; -1: nothing yet, -2: failed, -3: above a limit
    accuracy: Array  # [networks] float32 first reading


class Context(NamedTuple):
    """What a table's evaluator reads."""

    where: Index
    decisions: int  # T
    readings: Array  # [rows, R] float32, of which a query sees one
    costs: tuple[Array, ...]  # latency_ms, mflops, params_m, each [rows] float32
    reward: RewardFn
    seconds: Array  # [rows] float32 that the training of each took; 0 where nobody knows
    limits: Limits = NO_LIMITS


def evaluator(
    table: Table, where: Index, reward: RewardFn, noisy: bool, limits: Limits = NO_LIMITS
) -> Evaluator:
    """The jittable evaluator of a table; `noisy`: a query sees one of R readings, not the mean.

    What the table lacks, or is above one of the `limits`, is no evaluation: it fails and costs
    nothing.
    """
    ctx = Context(
        where=where,
        decisions=len(table.space.cardinalities),
        readings=jnp.asarray(table.readings if noisy else table.judged[:, None]),
        costs=tuple(map(jnp.asarray, (table.latency_ms, table.mflops, table.params_m))),
        reward=reward,
        seconds=jnp.zeros(len(table.archs))
        if table.seconds is None
        else jnp.asarray(table.seconds),
        limits=limits,
    )
    return Evaluator(
        functools.partial(initial, where),
        functools.partial(evaluate, ctx),
        jittable=True,
        stats=over_limit if limits.any else lambda known: {},
        left=functools.partial(left, askable(table, where, limits)),
    )


def askable(table: Table, where: Index, limits: Limits) -> Array:
    """[networks] bool: which ones the table holds, within the `limits`."""
    costs = (jnp.asarray(getattr(table, name)) for name in COSTS)
    network = where.network_of(jnp.asarray(table.archs))
    return jnp.zeros(where.networks, bool).at[network].set(within(limits, *costs))


def left(askable: Array, known: Known) -> Array:
    """As `Evaluator.left`."""
    return jnp.sum(askable & (known.row == -1))


def over_limit(known: Known) -> dict[str, Array]:
    """How many networks were asked for that are above a limit."""
    return {"over_limit": (known.row == OVER_LIMIT).sum()}


def initial(where: Index) -> Known:
    """Before the first reading."""
    return Known(jnp.full(where.networks, -1, jnp.int32), jnp.zeros(where.networks, jnp.float32))


def evaluate(
    ctx: Context, known: Known, archs: Array, mask: Array, key: Array
) -> tuple[Known, Metrics]:
    """As `Evaluator.evaluate`."""
    n, none = archs.shape[0], ctx.where.networks
    chex.assert_shape(archs, (n, ctx.decisions))
    chex.assert_shape(mask, (n,))
    network, row = ctx.where.network_of(archs), ctx.where.row_of(archs)
    reading = jax.random.randint(key, (n,), 0, ctx.readings.shape[1])
    accuracy = ctx.readings[row, reading]
    # The first entry of the batch that asks for the same network speaks for all of them.
    nameless = network == none
    first = first_equal(network, mask & ~nameless)
    row, accuracy = row[first], accuracy[first]
    seen = (known.row[network] != -1) & ~nameless
    row = jnp.where(seen, known.row[network], row)
    accuracy = jnp.where(seen, known.accuracy[network], accuracy)
    costs = [jnp.where(mask & (row >= 0), cost[row], jnp.nan) for cost in ctx.costs]
    allowed = within(ctx.limits, *costs) | (row < 0)
    ok = mask & (row >= 0) & jnp.isfinite(accuracy) & allowed
    fresh = mask & ~seen & (first == jnp.arange(n)) & allowed & (row >= 0)
    accuracy = jnp.where(ok, accuracy, 0.0)
    metrics = Metrics(
        accuracy=accuracy,
        reward=jnp.where(ok, ctx.reward(accuracy, *costs), 0.0),
        latency_ms=costs[0],
        mflops=costs[1],
        params_m=costs[2],
        seconds=jnp.where(fresh, ctx.seconds[row], 0.0),
        ok=ok,
        fresh=fresh,
    )
    # What was there before, or is no network of the table, falls outside and is dropped.
    slot = jnp.where(fresh | (mask & ~seen & ~allowed), network, none)
    found = jnp.where(ok, row, jnp.where(allowed, -2, OVER_LIMIT))
    known = Known(
        known.row.at[slot].set(found, mode="drop"),
        known.accuracy.at[slot].set(accuracy, mode="drop"),
    )
    return known, metrics


def top_rows(table: Table, share: float = 0.001) -> np.ndarray:
    """[M] bool: rows whose judged figure reaches the (1 - share) quantile of all rows.

    More is better, of what is minimised, too: the table holds its negatives.
    """
    return table.judged >= np.nanquantile(table.judged.astype(np.float64), 1 - share)


def load(config: Any) -> Table:
    """The table that `config.task` names, with all its rows. Raises UserError as `tables.load`."""
    task = config.task
    kind, _, name = task.name.partition("/")
    if kind != "tabular" or not name:
        names = ", ".join(f"tabular/{name}" for name in tables.FILES)
        raise UserError(f"task.name is {task.name!r}; tables are {names} or tabular/PATH.csv")
    given = {
        "objective": task.objective != objectives.DEFAULT,
        "class_weights": task.class_weights == "balanced",
    }
    for key in (key for key, is_given in given.items() if is_given):
        raise UserError(
            f"task.{key} is {task[key]!r}, which says how networks are trained on images, and"
            f" {task.name} is a table: leave it out"
        )
    asked = Asked(task.metric, task.direction, tuple(task.decisions), task.time)
    return tables.load(name, task.data_dir, asked)


def space(config: Any) -> Space:
    """The space that the table of `config.task` is about."""
    return load(config).space


def priced(config: Any, table: Table) -> Table:
    """The rows of `table` that have the costs which `config.reward` and `config.limits` need.

    What was left out, or is unknown, is said in its `notes`. Raises UserError for a cost that the
    table lacks, or where `config.task.missing_costs` refuses to leave rows out.
    """
    wanted = {n: f"limits.{n}" for n, at in limits_lib.from_config(config)._asdict().items() if at}
    if config.reward.cost != "none":
        wanted[config.reward.cost] = "reward.cost"
    costs = {name: getattr(table, name) for name in COSTS}
    for name, key in wanted.items():
        if np.isnan(costs[name]).all() and not table.unpriced.get(name):
            value = repr(name) if key == "reward.cost" else f"{config.limits[name]:g}"
            raise UserError(f"{key} is {value}, which table {table.name} does not hold")
    rows, said = table_costs.kept(
        table.name, costs, table.unpriced, wanted, config.task.missing_costs
    )
    table = table._replace(notes=(*table.notes, *said))
    if rows.all():
        return table
    of_rows = ["archs", "judged", "readings", *COSTS]
    of_rows += [] if table.seconds is None else ["seconds"]
    return table._replace(**{name: getattr(table, name)[rows] for name in of_rows})


def existing(table: Table, where: Index) -> Array | None:
    """As `Task.existing`: the rows, and the canonical forms of their networks."""
    if where.complete:
        return None
    forms = np.asarray(table.space.canonical(jnp.asarray(table.archs)))
    return jnp.asarray(np.unique(np.concatenate([table.archs, forms]), axis=0))


def build(config: Any, space: Space | None = None, knowledge: Any = None) -> Task:
    """The tabular task of `config.task` and `config.reward`; `space` may be left to the table.

    Tables need no `knowledge`. Raises UserError for a bad table, a space that is not the table's,
    or a cost that it lacks.
    """
    whole = load(config)
    if space is not None and space.cardinalities != whole.space.cardinalities:
        raise UserError(f"table {whole.name} is about space {whole.space.name}, not {space.name}")
    reward = rewards.from_config(config, whole.measure)
    table = priced(config, whole)
    limits = limits_lib.from_config(config)
    check_limits(limits, table)
    where, noisy = table_index.of(table), bool(config.task.noisy)
    looked_up = evaluator(table, where, reward, noisy, limits)
    rows = existing(table, where)
    some = limits.any or rows is not None
    return Task(
        name=f"tabular/{table.name}",
        space=table.space,
        # Of the whole table, because which rows are left out is a matter of the reward.
        evaluator=looked_up._replace(protocol=protocols.of_table(whole, noisy)),
        final=functools.partial(final, table, where),
        measure=table.measure,
        allowed=functools.partial(allowed, limits, table, where) if some else None,
        existing=rows,
        simulated=protocols.of_times(whole),
        features=functools.partial(table_features.of, config.features, table, where, rows),
        said=table.notes + (() if rows is None else gaps(table)),
    )


def gaps(table: Table) -> tuple[str, ...]:
    """What is said where the table lacks some of its space."""
    rows, size = len(table.archs), table.space.size
    return (f"the table holds {rows:,} of {size:,} combinations: no others are asked for",)


def allowed(limits: Limits, table: Table, where: Index, archs: Array) -> Array:
    """As `Task.allowed`: what the table holds, within the limits."""
    row = where.row_of(archs)
    costs = (jnp.asarray(getattr(table, name))[row] for name in COSTS)
    return within(limits, *costs) & (row >= 0)


def check_limits(limits: Limits, table: Table) -> None:
    """Raises UserError for a limit below all costs that the table has."""
    for name, limit in limits._asdict().items():
        costs = getattr(table, name)
        if limit:
            text = table.space.describe(table.archs[costs.argmin()])["text"]
            limits_lib.check(name, limit, costs.min(), f"of table {table.name}", text)


def final(table: Table, where: Index, arch: Array, key: Array) -> Judged:
    """`Task.final` of a table, which draws and trains nothing: `judge`."""
    return Judged(judge(table, where, arch))


def judge(table: Table, where: Index, arch: Any) -> dict[str, Any]:
    """What the table says of one architecture [T]: its judged figure, its regret and its rank.

    `accuracy` is that of a share, and `value` the figure of any metric, as the file has it.
    `regret_points` is what the best of the table is better by: in points of a share, else in the
    metric's own unit. Rank 1 is the best, by the metric's direction.
    """
    row = int(where.row_of(jnp.asarray(arch, jnp.int32)[None])[0])
    judged = float(table.judged[row]) if row >= 0 else float("nan")
    known, share = bool(np.isfinite(judged)), table.measure.kind == "share"
    regret = (100 if share else 1) * (float(np.nanmax(table.judged)) - judged) if known else None
    return {
        "accuracy": judged if known and share else None,
        "value": table.measure.sign * judged if known else None,
        "regret_points": regret,
        "rank": int((table.judged > table.judged[row]).sum()) + 1 if known else None,
        "architectures": len(table.archs),
        "measures": table.note,
        "seconds": 0.0,
    }
