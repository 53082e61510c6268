import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import hosts
from fnas_jax.core.types import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1", None, None), "have to be given together"),
        (("", 2, 0), "have to be given together"),
        (("localhost:1", 2, 2), "--host_id is 2; with --num_hosts=2"),
        (("localhost:1", 0, 0), "--host_id is 0; with --num_hosts=0"),
        (("localhost", 2, 0), "must be HOST:PORT"),
        (("localhost:http", 2, 0), "must be HOST:PORT"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        hosts.start(*arguments)


def test_without_arguments_a_host_is_alone(monkeypatch):
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)
    hosts.start()
    assert hosts.count() == 1
    assert hosts.is_first()


def test_the_hosts_of_a_pod_find_each_other(monkeypatch):
    called = []
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: called.append(given))
    hosts.start()
    assert called == [()]


def test_gathering_from_one_host_makes_numpy_arrays():
    tree = {"a": jax.numpy.arange(3), "b": np.ones(2)}
    assert all(isinstance(leaf, np.ndarray) for leaf in hosts.gather(tree).values())


def test_a_failed_collective_is_only_another_hosts_fault_where_there_is_one(monkeypatch):
    error = ValueError("Gloo all-reduce failed\ndetails")
    assert hosts.lost(error) is None
    monkeypatch.setattr(hosts, "count", lambda: 2)
    text = hosts.lost(error)
    assert "a host of this search has gone" in text and "\n" not in text
    assert hosts.lost(ValueError("shapes differ")) is None
    assert hosts.lost(ValueError()) is None


def test_a_digest_tells_every_bit_and_place():
    tree = {
        "a": jnp.array([0.0, 1.0, 2.0]),
        "b": jnp.array([True, False]),
        "c": jnp.arange(4).reshape(2, 2),
    }
    others = [
        tree | {"a": jnp.array([-0.0, 1.0, 2.0])},
        tree | {"a": jnp.array([1.0, 0.0, 2.0])},
        tree | {"a": jnp.array([0.0, 1.0, np.nextafter(np.float32(2), np.float32(3))])},
        tree | {"b": jnp.array([False, True])},
        tree | {"c": jnp.arange(4).reshape(2, 2).T},
        tree | {"a": jnp.zeros(3)},
        {"a": tree["a"], "b": tree["c"], "c": tree["b"]},
    ]
    found = {tuple(np.asarray(hosts.digest(t)).tolist()) for t in [tree, *others]}
    assert len(found) == 8
    again = jax.tree.map(jnp.array, tree)
    np.testing.assert_array_equal(hosts.digest(tree), hosts.digest(again))


def test_what_all_hosts_hold_is_not_sent(monkeypatch):
    tree, sent = {"a": jnp.arange(3.0)}, []
    assert hosts.shared(tree) is tree  # alone
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "broadcast", lambda t: sent.append(t) or t)
    for other, expected in ((True, 1), (False, 2)):
        sent.clear()
        gather = lambda x, other=other: np.array([x, other])  # noqa: E731
        monkeypatch.setattr(hosts.multihost_utils, "process_allgather", gather)
        np.testing.assert_array_equal(hosts.shared(tree)["a"], tree["a"])
        assert len(sent) == expected  # the digest, and what differs
