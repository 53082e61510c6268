"""The final training of winners, and of networks that are compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import keep as keeping
from fnas_jax.core.config import default
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import cell, mnas
from fnas_jax.tasks import data, images, latency, reference, winner

MNAS = mnas.make(blocks=2, strides=(1, 2), width=0.5, stem=16, stem_stride=1, head=16)


def test_the_winner_is_trained_timed_and_priced_in_its_canonical_form(monkeypatch):
    space = cell.make(channels=4, cells_per_stage=1)
    config = default()
    config.winner.reference = False
    trained, timed = [], []
    monkeypatch.setattr(
        winner.elastic, "fixed_network", lambda space, arch, *a, **k: trained.append(arch)
    )
    failed = winner.Tested({"accuracy": None}, None)
    monkeypatch.setattr(winner, "train_and_test", lambda ctx, jobs, key, keep: [failed])
    ctx = images.train_context(config, space, data.load("digits"))
    ctx = ctx._replace(latency_ms=lambda arch: timed.append(arch) or 1.0)
    # The second edge ends in a node that nothing reads; the other one may change its name.
    asked, form = jnp.asarray([3, 3, 0, 1, 2, 0]), [0, 3, 0, 1, 0, 2]
    found, again = (winner.final(ctx, a, jax.random.key(0)) for a in (asked, jnp.asarray(form)))
    assert [np.asarray(arch).tolist() for arch in trained + timed] == 4 * [form]
    assert found == again and found.network is None


def test_the_winner_learns_all_images_but_those_that_it_is_tested_on(monkeypatch):
    """Training and validation images teach it, the test images judge it, each with its label."""
    given = []
    monkeypatch.setattr(winner.entrants, "train", lambda ctx, jobs, *rest: given.append(rest) or [])
    dataset, key, keep = data.load("digits"), jax.random.key(0), keeping.NOWHERE
    winner.train_and_test(images.train_context(default(), MNAS, dataset), [], key, keep)
    ((examples, *others),) = given
    assert others == [key, keep] and examples.judges == "test"
    for part, parts in (("train", ("train", "val")), ("eval", ("test",))):
        for kind in ("images", "labels"):
            expected = [getattr(dataset, f"{name}_{kind}") for name in parts]
            got = getattr(examples.data, f"{part}_{kind}")
            np.testing.assert_array_equal(got, np.concatenate(expected))


def test_compared_networks_are_judged_by_validation_images_and_references_trained_once(monkeypatch):
    """No test image has a part; networks of one cost have one reference."""
    space = cell.make(channels=4, cells_per_stage=1)
    dataset = data.load("digits")
    ctx = images.train_context(default(), space, dataset)._replace(latency_ms=lambda arch: 1.0)
    built, rounds = [], []
    monkeypatch.setattr(
        winner.elastic,
        "fixed_network",
        lambda space, arch, shape, classes, backend="": (
            built.append((np.asarray(arch).tolist(), space.spec.channels)) or len(built) - 1
        ),
    )

    def judge(ctx, jobs, given, key, keep):
        rounds.append([job.name for job in jobs])
        examples = given.data
        assert given.judges == "validation"
        for part, kind in (("train", "train"), ("eval", "val")):
            np.testing.assert_array_equal(
                getattr(examples, f"{part}_images"), getattr(dataset, f"{kind}_images")
            )
            np.testing.assert_array_equal(
                getattr(examples, f"{part}_labels"), getattr(dataset, f"{kind}_labels")
            )
        for job in jobs:
            yield winner.Tested({"accuracy": job.network / 10, "seconds": 1.0}, None)

    monkeypatch.setattr(winner.entrants, "train", judge)
    archs = np.array([[3, 3, 0, 1, 2, 0], [3, 3, 0, 2, 1, 0], [3, 3, 3, 3, 3, 3]])
    forms, lines = np.asarray(space.canonical(jnp.asarray(archs))).tolist(), []
    found = winner.compare(ctx, archs, jax.random.key(0), lines.append)
    standard = reference.standard(space).tolist()
    assert [arch for arch, _ in built] == [*forms, standard, standard]
    narrow, own = (channels for _, channels in built[3:])
    assert narrow < own == 4
    names = ["network 1", "network 2", "network 3", "reference 1", "reference 2"]
    assert rounds == [names]
    assert [own["accuracy"] for own in found] == [0.0, 0.1, 0.2]
    assert [own["reference"]["accuracy"] for own in found] == [0.3, 0.3, 0.4]
    assert all("validation images" in own["measures"] for own in found)
    macs = cost(space, dataset.image_shape, 10)(jnp.asarray(forms))[1]
    np.testing.assert_allclose([own["mflops"] for own in found], macs / 1e6)
    assert lines[-1] == "trained 5 of 5 networks that are compared"
    ctx.config.winner.reference = False
    alone = winner.compare(ctx, archs[:1], jax.random.key(0), lines.append)
    assert "reference" not in alone[0] and lines[-1].startswith("trained 1 of 1")


def test_what_is_above_a_limit_is_not_trained_to_be_compared(monkeypatch):
    """By `latency.source`, which may be another one than the search's; not by the clock."""
    space = cell.make(channels=4, cells_per_stage=1)
    config = default()
    config.limits.latency_ms = 5.0
    ctx = images.train_context(config, space, data.load("digits"))
    source = latency.Source("python:m:f", of=lambda archs: np.where((archs == 2).any(1), 5.0, 9.0))
    ctx = ctx._replace(latency_ms=lambda arch: 100.0, latency=source)
    built = []
    monkeypatch.setattr(winner, "own_network", lambda ctx, arch: built.append(arch.tolist()))
    monkeypatch.setattr(reference, "network", lambda ctx, width, multiple: None)
    tested = winner.Tested({"accuracy": 0.5, "seconds": 1.0}, None)
    monkeypatch.setattr(winner.entrants, "train", lambda ctx, jobs, *rest: [tested] * len(jobs))
    archs = np.array([[0, 0, 0, 3, 0, 0], [0, 0, 0, 2, 0, 0]])
    slow, fast = winner.compare(ctx, archs, jax.random.key(0), print)
    assert (slow["accuracy"], slow["seconds"], fast["accuracy"]) == (None, 0.0, 0.5)
    assert len(built) == 1 and 2 in built[0] and "reference" not in slow
    (only,) = winner.compare(ctx, archs[:1], jax.random.key(0), print)
    assert only["accuracy"] is None and len(built) == 1


@pytest.mark.parametrize(("ms", "said"), [(9.0, True), (5.0, False)])
def test_a_winner_above_the_limit_by_another_source_is_said(monkeypatch, caplog, ms, said):
    space = cell.make(channels=4, cells_per_stage=1)
    config = default()
    config.limits.latency_ms, config.winner.steps = 5.0, 0
    ctx = images.train_context(config, space, data.load("digits"))
    source = latency.Source("python:m:f", of=lambda archs: np.full(len(archs), ms))
    ctx = ctx._replace(latency_ms=lambda arch: 1.0, latency=source)
    winner.final(ctx, jnp.asarray([3, 0, 0, 0, 0, 3]), jax.random.key(0))
    sentence = "the winner takes 9 ms by python:m:f, and limits.latency_ms is 5"
    assert (sentence in caplog.text) == said
