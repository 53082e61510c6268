"""What two hosts do is what one does: two processes on this machine, with a population in small."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from fnas_jax.core import devices, hosts
from fnas_jax.knowledge.pool import Source
from fnas_jax.tasks import population_trainer
from fnas_jax.tasks.context import Batch
from fnas_jax.training.child import Outcome
from fnas_jax.training.population import Trained

START = {"w": np.full((4, 2), 0.5, np.float32)}
OTHER = {"w": np.zeros((4, 2), np.float32)}  # with which a host begins that knows nothing


def small_trainer(mesh):
    """Children whose parameters are those that they inherit, their decisions and their keys."""

    class Space:
        cardinalities = (4, 4)

    class Context:
        space, store = Space, None

    def population(examples, archs, active, keys, steps, pool, entry):
        weights = pool["w"][entry[:, 0]] + archs + keys[:, :1] % 7
        accuracy = weights.mean(axis=1)
        return Trained(Outcome(accuracy, accuracy, active), {"w": weights})

    def deposit(pool, batch, source, outcome, params, back, owner):
        left = jnp.where((batch.new & outcome.ok)[:, None], params["w"][back], 0.0)
        return {"w": pool["w"].at[source.entry[:, 0]].add(left)}, {"mean": outcome.accuracy.mean()}

    def find(pool, archs):
        entry = (archs[:, :1] + pool["w"][0, 0].astype(int)) % 4
        return Source(entry.astype(jnp.int32), None, None)

    own, all_ = PartitionSpec(devices.CHILDREN), PartitionSpec()
    spread = jax.shard_map(
        population, mesh=mesh, in_specs=(all_, own, own, own, all_, all_, own), out_specs=own
    )
    steps = devices.replicate(np.int32(1), mesh)
    parts = (jax.jit(spread), steps, steps, jax.jit(find), jax.jit(deposit))
    return population_trainer.Trainer(Context, None, mesh, *parts)


def three_batches(trainer, pool):
    """(pool, accuracies) after a batch that teaches, one that does not, and one more that does."""
    found = []
    for i, learns in enumerate((True, False, True)):
        archs = jax.random.randint(jax.random.key(i), (3, 2), 0, 4)
        batch = Batch(archs, archs, jnp.array([True, i > 0, True]), *[jnp.arange(3)] * 2)
        given = trainer, pool, batch, jax.random.key(10 + i)
        if learns:
            pool, _, outcome, _ = population_trainer.train_population(*given)
        else:
            outcome = population_trainer.judge_population(*given)
        found.append(np.asarray(outcome.accuracy))
    return pool, found


def alone():
    """What one host comes to."""
    pool, found = three_batches(small_trainer(devices.children_mesh(jax.devices()[:1])), START)
    return np.asarray(pool["w"]), found


def test_a_pool_goes_to_other_hosts_once_and_then_learns_there(monkeypatch):
    """The first host's messages, played to another one that begins with another pool."""
    trainer = small_trainer(devices.children_mesh(jax.devices()[:1]))
    weights, outcomes = alone()
    sent, gather = [], multihost_utils.process_allgather
    lacking = [False, True, True]  # whether the other one has the pool

    def broadcast(tree):
        sent.append(jax.tree.map(np.array, tree))
        return tree

    def asked(tree, tiled=False):
        return gather(tree, tiled=True) if tiled else np.array([bool(tree), lacking.pop(0)])

    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "broadcast", broadcast)
    monkeypatch.setattr(multihost_utils, "process_allgather", asked)
    pool, found = three_batches(trainer, START)
    np.testing.assert_array_equal(pool["w"], weights)
    np.testing.assert_array_equal(found, outcomes)
    assert sum(isinstance(tree, dict) for tree in sent) == 1

    messages, pools = iter([*sent, np.int32(0)]), []

    def receive(tree):
        message = next(messages)
        of = [(np.shape(leaf), np.asarray(leaf).dtype) for leaf in jax.tree.leaves(tree)]
        assert of == [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(message)]
        return message

    def deposit(*given):
        pools.append(trainer.deposit(*given))
        return pools[-1]

    def answered(tree, tiled=False):
        return gather(tree, tiled=True) if tiled else np.array([True, bool(tree)])

    monkeypatch.setattr(hosts, "broadcast", receive)
    monkeypatch.setattr(multihost_utils, "process_allgather", answered)
    population_trainer.worker_loop(trainer._replace(deposit=deposit), OTHER)
    assert len(pools) == 2 and not list(messages)
    np.testing.assert_array_equal(pools[-1][0]["w"], weights)


def play(port, host):
    """One of two hosts; the first prints how often the pool was sent, and what came out."""
    hosts.start(f"localhost:{port}", 2, host)
    trainer, sent = small_trainer(devices.children_mesh()), []
    if not hosts.is_first():
        population_trainer.worker_loop(trainer, OTHER)
        return
    broadcast = hosts.broadcast
    hosts.broadcast = lambda tree: sent.append(isinstance(tree, dict)) or broadcast(tree)
    pool, found = three_batches(trainer, START)
    hosts.broadcast_command(0)
    print("sent", sum(sent), np.asarray(pool["w"]).tolist(), np.asarray(found).tolist(), flush=True)


@pytest.mark.slow  # two processes that import; the one above plays their messages
def test_two_hosts_come_to_what_one_does():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = "from tests.tasks import test_several_hosts as t; t.play({}, {})"
    commands = [[sys.executable, "-c", code.format(port, host)] for host in (0, 1)]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(c, env=os.environ.copy(), **given) for c in commands]
    first, second = (process.communicate(timeout=600) for process in running)
    assert [process.returncode for process in running] == [0, 0], first[1] + second[1]
    weights, found = alone()
    last = first[0].strip().splitlines()[-1]  # after what Gloo says
    assert last == f"sent 1 {weights.tolist()} {np.asarray(found).tolist()}"
