"""Layers of the user's own: the same in each backend, the Flax network and the cost."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import layered
from fnas_jax.core.logging import finite
from fnas_jax.core.types import UserError
from fnas_jax.layers import compile_kernels, own
from fnas_jax.layers.own import Layer
from fnas_jax.networks import elastic, flax_reference, mobile_spaces, readable, subnet_weights
from fnas_jax.networks.cost import cost, one_cost
from fnas_jax.ship import flax_source, stock
from fnas_jax.ship import spec as spec_lib
from fnas_jax.spaces.widen import widen
from fnas_jax.timing import lookup, units
from tests.layers import own_layers
from tests.networks import agreement
from tests.networks.test_cost import count

ARCHS = np.asarray([[0, 0], [1, 0], [0, 2]])  # the ghost at both places, behind another, alone
NAME = "tests.layers.own_layers"


@pytest.fixture(scope="module", params=["kernels", "reference", "masked", "branched", "exact"])
def case(request):
    if request.param == "kernels" and not compile_kernels.available():
        pytest.skip("no C++ compiler for the kernels")
    return agreement.case(own_layers.space, request.param, ARCHS)


@pytest.mark.slow
@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)


def test_an_elastic_child_computes_what_the_flax_network_does():
    net, arch = elastic.make(own_layers.space, 1, 3, "reference"), ARCHS[1]
    images = jax.random.normal(jax.random.key(1), (4, 6, 6, 1))
    shapes = jax.eval_shape(lambda: (net.init(jax.random.key(0), arch), net.init_stats()))
    params, stats = agreement.filled(shapes)
    variables = subnet_weights.get(own_layers.space, arch, params, stats)
    module = flax_reference.build(own_layers.space, arch, 3)
    training = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    expected, _ = jax.jit(training)(variables, images)
    agreement.assert_close(jax.jit(net.apply)(params, arch, images), expected)


def test_cost_equals_a_count_over_the_flax_network():
    space, image, classes = own_layers.space, (9, 12, 2), 5
    params, macs = cost(space, image, classes)(ARCHS)
    found = list(zip(params.tolist(), macs.tolist(), strict=True))
    modules = [flax_reference.build(space, arch, classes, fast=False) for arch in ARCHS]
    assert found == [count(module, image) for module in modules]
    assert found == [one_cost(space, arch, image, classes) for arch in ARCHS]


def test_cost_is_right_above_what_an_int32_holds():
    choices = {"own": layered.own(f"{NAME}:Deaf"), "k3": layered.conv(3)}
    space = layered.make([layered.stage(512, choices)], stem=512)
    for arch in ([0], [1]):
        exact = one_cost(space, arch, (128, 128, 3), 10)
        assert exact[1] > 2**31
        found = [column[0] for column in cost(space, (128, 128, 3), 10)(np.asarray([arch]))]
        np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_a_layer_starts_as_its_class_says_and_is_trained_where_it_is_used():
    net = elastic.make(own_layers.space, 1, 3, "reference")
    params = jax.jit(net.init)(jax.random.key(0), ARCHS[0])
    first, rest = (params["stacks"][0][part] for part in ("first", "rest"))
    (name,) = (key for key in first if key.startswith(own.PREFIX))
    (later,) = (key for key in rest if key.startswith(own.PREFIX))
    assert name != later  # other widths or strides, another layer
    np.testing.assert_array_equal(first[name]["gain"], np.full(8, 0.5))
    assert float(jnp.std(rest[later]["main"]["kernel"])) > 0
    used = jax.jit(net.parts.used)(ARCHS[1])["stacks"][0]
    assert not used["first"][name]["gain"].any() and used["rest"][later]["gain"].all()
    assert used["first"]["expand"].any() and not used["rest"]["norm_out"]["scale"].any()


def test_moments_are_the_batch_s_whatever_the_momentum():
    layer = Layer(f"{NAME}:Quick", (), text("Quick"), 1, 4, 4)
    code = own.register(layer)
    params = own.initial(code, ()).draw(jax.random.key(0))
    x = 2 + 3 * jax.random.normal(jax.random.key(1), (8, 5, 5, 4))
    stats = own.zero_stats(layer.name, ())
    y, found = own.apply(code, params, x, stats, jnp.bool_(True))
    (moments,) = found.values()
    np.testing.assert_allclose(moments.mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(moments.var, x.var((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(y.mean((0, 1, 2)), np.zeros(4), atol=1e-5)
    normed, same = own.apply(code, params, x, found, jnp.bool_(False))
    np.testing.assert_allclose(normed, y, atol=1e-4)
    np.testing.assert_array_equal(same["BatchNorm_0"].mean, moments.mean)


def text(name):
    return layered.own(f"{NAME}:{name}").text


def space_of(choice):
    return layered.make([layered.stage(8, {"own": choice}, stride=2)], stem=4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Deaf", {}, r"makes \(2, 8, 7, 8\) of \(2, 8, 7, 4\); \(2, 4, 4, 8\) is needed"),
        ("Lucky", {}, "cannot be made: InvalidRngError"),
        ("Counting", {}, r"has variables \['cache'\]; allowed are params and batch_stats"),
        ("Sized", {}, "has variables whose shapes depend on the image's size"),
        ("Still", {"frozen": True}, "has statistics that no batch changes: a normalisation needs"),
        ("Still", {"frozen": False}, "cannot be made: ModifyScopeVariableError"),
        ("Ghost", {"colour": "red"}, "cannot be made: TypeError: .*colour"),
    ],
)
def test_what_is_no_layer_is_one_sentence(name, options, message):
    space = space_of(layered.own(f"{NAME}:{name}", **options))
    what = f"the layer {NAME}:{name} for 4 to 8 channels at stride 2 "
    with pytest.raises(UserError, match=what + message) as error:
        elastic.make(space, 1, 3, "reference")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (f"{NAME}:Gost", "has no 'Gost'; did you mean 'Ghost'"),
        ("nothing.here:Ghost", "nothing.here cannot be imported"),
        ("__main__:Ghost", "can be imported by no other process"),
    ],
)
def test_a_class_that_cannot_be_found_is_one_sentence(module, message):
    with pytest.raises(UserError, match=message):
        layered.own(module)


def test_no_class_of_modules_and_another_text_are_refused():
    space = space_of(layered.own(f"{NAME}:Ghost")._replace(module=f"{NAME}:ARRAYS", text=""))
    with pytest.raises(UserError, match="has no 'ARRAYS'"):
        elastic.make(space, 1, 3, "reference")
    with pytest.raises(UserError, match="has changed: its text is not the one"):
        elastic.make(space_of(layered.own(f"{NAME}:Ghost")._replace(text="old")), 1, 3)
    assert space_of(layered.own(own_layers.Ghost)).key != space_of(layered.own(own_layers.Deaf)).key


def test_the_dearest_branch_and_one_turn_of_a_loop_are_counted():
    code = own.register(Layer(f"{NAME}:Branching", (), text("Branching"), 1, 4, 4))
    assert own.cost(code, 5, 6) == (16, 2 * 5 * 6 * 16)


def test_what_is_exported_is_the_class_that_was_trained(monkeypatch):
    layer = Layer(f"{NAME}:Quick", (), text("Quick"), 1, 10, 10)
    own.register(layer)
    record = {"op": "own", "module": layer.module, "options": {}, "text": layer.text}
    record |= {"stride": 1, "in": 10, "out": 10}
    monkeypatch.setattr(own_layers, "Quick", own_layers.Deaf)  # as after a reload
    assert [cls.__name__ for cls in flax_source._classes([record])] == ["Quick"]


def test_a_layer_keeps_the_class_that_it_was_registered_with(monkeypatch):
    code = own.register(Layer(f"{NAME}:Quick", (), text("Quick"), 1, 6, 6))
    monkeypatch.setattr(own_layers, "Quick", own_layers.Deaf)
    assert type(own.module(code)).__name__ == "Quick"


def test_a_spec_that_was_read_from_json_makes_the_same_layers_wider_ones_too():
    spec = own_layers.space.spec
    read = spec_lib.parse(json.loads(json.dumps(finite(spec_lib.described(spec)))))
    assert mobile_spaces.slots(read) == mobile_spaces.slots(spec)
    said = readable.layers(read, ARCHS[0], 1, 3)
    assert said[1]["module"] == f"{NAME}:Ghost" and said[1]["options"] == {"kernel": 5}
    assert said == readable.layers(spec, ARCHS[0], 1, 3) == json.loads(json.dumps(said))
    wide = widen(own_layers.space, 2.0).spec
    assert [slot.choices[0].cout for slot in mobile_spaces.slots(wide)[0]] == [16, 16]
    assert (wide.stem, wide.head) == (16, 32)


def test_its_source_is_copied_or_refused():
    layers = readable.layers(own_layers.space.spec, ARCHS[1], 1, 3)
    (source,) = flax_source._own(layers)
    assert source.startswith("class Ghost(nn.Module):")
    assert any("def norm(" in part for part in flax_source._definitions(layers))
    assert flax_source._stock_of(stock.ConvLayer) == {
        stock.conv,
        stock.norm,
        stock.gate,
        stock.skipped,
        stock.average,
    }
    foreign = {"op": "own", "module": f"{NAME}:Foreign", "text": text("Foreign"), "options": {}}
    foreign |= {"stride": 1, "in": 4, "out": 4}
    with pytest.raises(UserError, match="Foreign uses 'HALF', so it cannot be written as source"):
        list(flax_source._own([foreign]))


def test_a_table_of_latencies_refuses_them_instead_of_leaving_them_out():
    with pytest.raises(UserError, match="Ghost of your own, which a table of latencies has no row"):
        units.of_network(own_layers.space, ARCHS[0], (8, 8, 1), 3)
    with pytest.raises(UserError, match="has no row"):
        lookup.of_space(own_layers.space, (8, 8, 1), 3)
