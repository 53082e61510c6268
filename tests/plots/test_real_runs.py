"""Every figure of what real searches have written, and what stands in it."""

import numpy as np
import pytest

import fnas_jax
from fnas_jax import plots
from fnas_jax.core.types import UserError
from fnas_jax.plots import critics, data, policies, spent

SPACE = fnas_jax.categorical({"depth": [1, 2, 3, 4], "wide": [1, 2, 3], "kind": ["a", "b"]})
QUIET = {"log.tensorboard": False, "search.batch": 4}


def loss(decisions):
    if decisions["depth"] == 4 and decisions["kind"] == "b":
        raise ValueError("too deep")
    return {"loss": 1 / decisions["depth"], "mflops": decisions["depth"] * decisions["wide"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search by a method that learns nothing, of a loss, with failed networks."""
    task = fnas_jax.from_function(SPACE, loss, metric="loss", direction="minimize")
    folder = tmp_path_factory.mktemp("plots")
    return fnas_jax.search(task=task, method="random", budget=14, workdir=folder, **QUIET)


def test_figures_of_a_result_have_its_trials(found):
    records = data.read(found).records
    figure = found.plot_history()
    names = {trace.name for trace in figure.data}
    assert {"measured", "failed", "best so far", "best"} <= names
    best = next(t for t in figure.data if t.name == "best")
    assert best.y[0] == min(r["value"] for r in records if r["value"] is not None)
    line = next(t for t in found.plot_pareto().data if "no other" in t.name)
    # Of the depth d and width w, the loss is 1 / d at d w.
    np.testing.assert_allclose(np.asarray(line.y)[-1], best.y[0])
    assert found.plot_history("seconds").layout.xaxis.title.text.endswith("of the search")
    assert len(plots.incumbent([found, found.workdir]).data) > 1
    assert sum(spent.seconds(plots.read(found)).values()) == pytest.approx(
        found.content["seconds"]["total"]
    )
    with pytest.raises(UserError, match="no run is given"):
        plots.incumbent([])
    with pytest.raises(UserError, match="neither a workdir nor a result"):
        plots.read(3)


def test_a_search_without_any_result_has_empty_plots(tmp_path):
    task = fnas_jax.from_function(SPACE, lambda d: float("nan"), name="nothing")
    result = fnas_jax.search(task=task, method="random", budget=4, workdir=tmp_path, **QUIET)
    assert [t.name for t in result.plot_history().data] == ["failed"]
    assert not plots.incumbent(result).data
    with pytest.raises(UserError, match=r"no network whose mflops it knows$"):
        result.plot_pareto()


@pytest.mark.slow
def test_what_fnas_logs_is_what_its_figures_show(tmp_path):
    """A critic that predicts, a policy that learns, on a function without noise."""
    task = fnas_jax.from_function(SPACE, lambda d: d["depth"] / 5 + d["wide"] / 50, name="steps")
    more = {"log.every": 1, "uac.warmup": 8, "search.max_proposals": 200}
    fnas_jax.search(task=task, method="fnas", budget=24, workdir=tmp_path, **QUIET, **more)
    run = plots.read(tmp_path)
    pairs = critics.pairs(run)
    # What was measured then is what the history holds of these networks.
    rewards = run.trials.reward[run.trials.kind == data.MEASURED]
    assert np.isin(np.round(pairs.measured, 5), np.round(rewards, 5)).all()
    assert 0 < len(pairs.measured) <= len(rewards) - 8
    assert (pairs.std > 0).all() and (np.diff(pairs.evaluations) >= 0).all()
    course = policies.course(run)
    assert [words for _, words in course.decisions] == list(SPACE.labels)
    for shares in course.shares:
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-3)
    assert (course.shares[0][-1] > course.shares[0][0])[2:].any()  # deeper ones are better
    for make in (
        *(plots.evaluations, plots.incumbent, plots.policy, plots.entropy, plots.predictions),
        *(plots.coverage, plots.critic_errors, plots.time, plots.importance),
    ):
        assert make(tmp_path).data, make
    lines = sum(len(str(line)) for line in run.lines) / len(run.lines)
    assert lines < 4000  # characters of an iteration
