"""The children that PyTorch trains are ours: equal logits by equal weights."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import children_throughput
from experiments.benchmarks.throughput import common
from fnas_jax.layers.spec import CONV, HARD_SWISH, MBCONV, POOL, RELU6
from fnas_jax.networks import elastic, mobile_spaces, subnet_weights
from tests.networks import agreement

SIDE = 9  # odd at every resolution, so that PyTorch's padding at stride 2 is ours


def architecture(name):
    """A random one without a pooling skip at stride 2, which pads as ours at even sizes only."""
    spec = common.space(name).spec
    for arch in children_throughput.sample(name, 50, 1):
        layers = mobile_spaces.layers_of(spec, arch)
        gated = any(v.se_hidden for *_, v in layers)
        if gated and not any(stride > 1 and v.skip == POOL for *_, stride, v in layers):
            return arch
    raise AssertionError("no such architecture")


def names(spec, arch):
    """The paths of the parts with weights in a Flax network, in the order in which they compute."""
    yield from (("stem",), ("stem_norm",))
    for stack, position, _, v in mobile_spaces.layers_of(spec, arch):
        gate = ["squeeze", "excite"] if v.se_hidden else []
        if v.op == CONV:
            parts = ["conv", "norm_out", *gate]
        else:
            parts = ["expand", "norm_expand"] if v.op == MBCONV else []
            parts += ["depthwise", "norm_depthwise", *gate, "project", "norm_out"]
        yield from ((f"stack{stack}_layer{position}", part) for part in parts)
    yield from (("head",), ("head_norm",))
    yield from [("mix",)] if mobile_spaces.mix(spec) else []
    yield ("classifier",)


def give(torch, module, variables, paths):
    """Writes the weights of a Flax network into a PyTorch module, one part after the other."""
    kinds = torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear
    parts = [part for part in module.modules() if isinstance(part, kinds)]
    for part, path in zip(parts, paths, strict=True):
        p, s = variables["params"], variables["batch_stats"]
        for name in path:
            p, s = p[name], s.get(name, {})
        found = {"bias": p.get("bias")}
        if "scale" in p:
            found |= {"weight": p["scale"], "running_mean": s["mean"], "running_var": s["var"]}
        else:
            kernel = np.asarray(p["kernel"])
            found["weight"] = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
        known = {n: torch.tensor(np.asarray(x)) for n, x in found.items() if x is not None}
        missing = part.load_state_dict(known, strict=False).missing_keys
        assert set(missing) <= {"num_batches_tracked"}


@pytest.mark.parametrize("name", common.SPACES)
def test_a_child_of_pytorch_has_our_logits_in_training_and_afterwards(name):
    torch = pytest.importorskip("torch")
    from experiments.benchmarks.throughput import plain_torch

    space, arch = common.space(name), architecture(name)
    net = elastic.make(space, common.CHANNELS, common.CLASSES)
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: (net.init(key, arch), net.init_stats()))
    params, stats = agreement.filled(shapes)
    images = np.asarray(jax.random.normal(key, (6, SIDE, SIDE, common.CHANNELS)))
    module = plain_torch.network(arch, space)
    variables = jax.tree.map(np.asarray, subnet_weights.get(space, arch, params, stats))
    give(torch, module, variables, names(space.spec, arch))
    theirs = torch.tensor(images.transpose(0, 3, 1, 2)).to(plain_torch.DEVICE)
    with torch.no_grad():
        evaluated = module.eval()(theirs).cpu().numpy()
        trained = module.train()(theirs).cpu().numpy()
    ours = jax.jit(lambda p, x: net.apply(p, arch, x))(params, images)
    judged = jax.jit(lambda p, s, x: net.apply_eval(p, s, arch, x, False)[0])(params, stats, images)
    agreement.assert_close(trained, np.asarray(ours))
    agreement.assert_close(evaluated, np.asarray(judged))


def test_both_spaces_have_what_sets_them_apart():
    acts = {
        name: {v.activation for *_, v in mobile_spaces.layers_of(common.space(name).spec, arch)}
        for name in common.SPACES
        for arch in [architecture(name)]
    }
    assert acts[common.MNAS] == {RELU6} and HARD_SWISH in acts[common.MOBILENETV3]
    large = common.space(common.MOBILENETV3).spec
    layers = mobile_spaces.layers_of(large, architecture(common.MOBILENETV3))
    assert any(v.hard_gate and v.activation == HARD_SWISH for *_, v in layers)
