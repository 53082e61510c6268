"""What fits into a time: how many children, of how many steps, and the winner's training."""

from __future__ import annotations

from typing import NamedTuple

from fnas_jax.training import halving

WINNER_SHARE = 0.6  # of the time
CHILDREN = 48  # which teach a controller something
LEAST_CHILDREN, MOST_CHILDREN = 8, 2000
UNCOUNTED = 14  # children beside the budget: a fair round for the pool, and the finalists
LEAST_STEPS = 50  # of a child, from inherited weights
# Of a child, or an epoch: fewer say little of a network, and narrower ones are searched
GOOD_STEPS = 500
CHILD_EPOCHS = 3.0  # at most; with more time there are more children
WINNER_EPOCHS = 20.0  # of which a network learns most of what it can
MOST_WINNER_EPOCHS = 200.0
LEAST_WINNER_STEPS = 1500  # also of few images
COMPILATIONS = 3.0  # of a child's program: what a search compiles in all
FORWARD = 1 / 3  # of a training step's work is that of a judged image


class Facts(NamedTuple):
    """What a schedule has to know of data and devices."""

    images: int  # that children train on
    judged: int  # validation images
    devices: int
    batch: int  # images of a training step
    halving: int = 0  # `children.halving`
    rungs: int = 0
    brackets: int = 1
    winner_share: float = WINNER_SHARE  # of the time


class Speed(NamedTuple):
    """How fast children train, with all devices at work."""

    macs: float  # multiply-adds of forward passes, a second, on each device
    compilation: float  # seconds until the first one trains
    # Multiply-adds that take as long as one number that a layer writes and reads again
    moved: float = 0.0
    own: float = 0.0  # seconds of a device that each child takes beside its images: its compilation


class Size(NamedTuple):
    """Work of an image in networks of a space: multiply-adds of a forward pass, and what they move.

    In multiply-adds, of which `Speed.moved` counts for each number that is moved.
    """

    mean: float
    high: float  # of the upper quarter, where winners are


class Schedule(NamedTuple):
    """What fits."""

    children: int
    steps: int  # of each
    child_seconds: float  # of each, on one device, on average
    search_seconds: float  # until the winner is known
    winner_steps: int  # expected; how many fit is measured when the winner is known
    winner_epochs: float


def schedule(facts: Facts, speed: Speed, size: Size, seconds: float) -> Schedule:
    """The most that fits into `seconds`, of which the winner's training has `facts.winner_share`.

    There are `CHILDREN`, of `good_steps` at least; fewer, down to half as many, where these do not
    fit; and then fewer steps, but no fewer than `LEAST_STEPS`. Beyond `CHILD_EPOCHS` there are more
    children. All devices share the winner's minibatches.
    """
    compiled = COMPILATIONS * speed.compilation
    for_search = max(seconds * (1 - facts.winner_share) - compiled, 0.0) * facts.devices
    steps = steps_for(CHILDREN, facts, speed, size, for_search)
    if steps < good_steps(facts):
        fewer = steps_for(CHILDREN // 2, facts, speed, size, for_search)
        steps = min(fewer, good_steps(facts))
    full = child_seconds(facts, speed, size, steps)
    each = child_seconds(facts, speed, size, steps, *expected(facts, steps))
    children = int((for_search - UNCOUNTED * full) / each)
    children = min(max(children, LEAST_CHILDREN), MOST_CHILDREN)
    searched = (children * each + UNCOUNTED * full) / facts.devices + compiled
    everything = facts.images + facts.judged
    a_second = speed.macs * facts.devices / size.high / facts.batch
    winner_steps = int(max(seconds - searched, 0.0) * a_second)
    winner_steps = min(max(winner_steps, LEAST_STEPS), most_winner_steps(facts))
    epochs = winner_steps * facts.batch / everything
    return Schedule(children, steps, each, searched, winner_steps, epochs)


def steps_for(children: int, facts: Facts, speed: Speed, size: Size, seconds: float) -> int:
    """Of each of so many children, and of those that are not counted, in `seconds` of a device.

    `LEAST_STEPS` at least and `CHILD_EPOCHS` at most.
    """
    of_each = max(seconds / (children + UNCOUNTED) - speed.own, 0.0)
    images = of_each * speed.macs / size.mean
    # Most steps leave rungs at the same shares of them.
    most = max(int(CHILD_EPOCHS * facts.images / facts.batch), LEAST_STEPS)
    made, judged = expected(facts, most)
    # Of all children, of which those that are not counted are trained in full.
    made = (children * made + UNCOUNTED) / (children + UNCOUNTED)
    judged = (children * judged + UNCOUNTED) / (children + UNCOUNTED)
    steps = int((images - judged * facts.judged * FORWARD) / (made * facts.batch))
    return min(max(steps, LEAST_STEPS), most)


def good_steps(facts: Facts) -> int:
    """Of a child that says something, at least."""
    return max(min(GOOD_STEPS, facts.images // facts.batch), LEAST_STEPS)


def expected(facts: Facts, steps: int) -> tuple[float, float]:
    """(share of `steps` that a child makes, how often it is judged), on average."""
    at = halving.rungs(steps, facts.halving, facts.rungs)
    how = facts.halving, facts.brackets
    return halving.share(at, steps, *how), halving.judgings(at, *how)


def child_seconds(
    facts: Facts, speed: Speed, size: Size, steps: int, made: float = 1.0, judged: float = 1.0
) -> float:
    """Of a child on a device that makes a share of `steps`, and is judged so often."""
    images = made * steps * facts.batch + judged * facts.judged * FORWARD
    return images * size.mean / speed.macs + speed.own


def most_winner_steps(facts: Facts) -> int:
    """Of a training that has all the time that it wants."""
    epoch = (facts.images + facts.judged) / facts.batch
    return max(int(MOST_WINNER_EPOCHS * epoch), LEAST_WINNER_STEPS)


def enough(facts: Facts, plan: Schedule, seconds: float) -> bool:
    """Whether networks of this size leave time for all: children, steps and the winner's epochs."""
    fits = plan.search_seconds <= seconds * (1 - facts.winner_share) * 1.05
    children = plan.children >= CHILDREN // 2 and plan.steps >= good_steps(facts)
    return fits and children and plan.winner_epochs >= WINNER_EPOCHS
