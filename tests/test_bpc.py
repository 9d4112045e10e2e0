"""Bidirectional predictive coding: its mirrored network, what it learns, what it refuses. Its
identities are in `pcbench verify`."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from support import batch, build, hyper, jit, network, relative, weights

from pcbench.algorithms.base import Trained, Unsupported
from pcbench.algorithms.bpc import BPC, as_factors, as_layers, mirrored
from pcbench.networks.vgg import vgg5
from pcbench.sweeps.expand import single
from pcbench.training.train import train

NUMBERS = {"discriminative_weight": 1.0, "generative_weight": 0.1}
VGG = {"activation": "relu", "states": "post", "bias": True, "channels": 2}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("states", ["post", "pre"])
@pytest.mark.parametrize("kind,depth", [("mlp", 1), ("mlp", 3), ("mlp", 9), ("linear", 3)])
def test_a_mirror_image_predicts_the_same_states_from_the_other_end(kind, depth, states):
    """The input in place of the output; the mirror image of the mirror image is the network."""
    widths = {1: [], 3: [8, 7]}.get(depth)
    net = network(kind, depth=depth, states=states, widths=widths)
    image, data = mirrored(net), batch(net)
    up = as_layers(net, net.forward(weights(net), data.x))
    down = as_layers(image, image.forward(weights(image), data.target))
    assert [h.shape for h in reversed(down)] == [h.shape for h in (data.x, *up[:-1])]
    assert mirrored(image) == net


def test_states_per_layer_are_states_per_factor():
    net = network(depth=9)
    states = net.forward(weights(net), batch(net).x)
    back = as_factors(net, as_layers(net, states))
    assert relative(back, states) == 0 and len(as_layers(net, states)) == net.layers


@pytest.mark.parametrize(
    "net,choices,reason",
    [
        (network("resmlp"), {}, "skip connection"),
        (vgg5(VGG, (32, 32, 3), 4), {}, "Convolution"),
        (network(), {"updater": "mirror"}, "updater=mirror"),
    ],
)
def test_what_has_no_second_direction_is_refused(net, choices, reason):
    with pytest.raises(Unsupported, match=reason):
        build(BPC, net, steps=1, **choices)


@pytest.mark.parametrize("depth", [1, 3])
def test_one_step_moves_both_weights_along_their_gradients(depth):
    """The same optimiser for V and W: under SGD, by the learning rate."""
    net = network(depth=depth)
    rule, data, numbers = build(BPC, net, steps=3), batch(net), hyper(lr=0.1, **NUMBERS)
    state = rule.init(jax.random.key(0))
    for_v, info, moved = jit(rule.observe)(state, data, numbers, jax.random.key(1))
    of_both = jit(lambda v, w: rule.gradients(v, w, data, numbers)[0])
    _, for_w = of_both(state.params, state.memory.params)
    for before, after, gradient in (
        (state.params, moved.params, for_v),
        (state.memory.params, moved.memory.params, for_w),
    ):
        change = jax.tree.map(lambda a, b: (a - b) / 0.1, before, after)
        assert relative(change, gradient) < 1e-12
    assert info.energy.shape == (4, depth)
    assert np.isnan(info.residual) == (depth == 1)


def test_an_image_is_generated_flat_and_read_as_its_pixels():
    """An input of any shape is one vector to both networks."""
    flat = network(depth=3)
    rules = [build(BPC, net, steps=3) for net in (flat, replace(flat, input_shape=(2, 3, 1)))]
    data, numbers = batch(flat), hyper(**NUMBERS)
    batches = [data, data._replace(x=data.x.reshape(-1, 2, 3, 1))]
    found = []
    for rule, given in zip(rules, batches, strict=True):
        state = rule.init(jax.random.key(0))
        trained = Trained(state.params, state.memory)
        made = rule.generate(trained, data.target, numbers, jax.random.key(0))
        found.append((jit(rule.step)(state, given, numbers, jax.random.key(1)).memory.params, made))
    assert found[0][1].shape == data.x.shape
    assert relative(*found) < 1e-12


def test_a_label_without_an_energy_is_not_inferred():
    rule = build(BPC, network(), "cross_entropy", steps=1)
    state = rule.init(jax.random.key(0))
    with pytest.raises(Unsupported, match="squared_error"):
        rule.infer(Trained(state.params, state.memory), batch(rule.network).x, hyper(**NUMBERS))


def test_one_network_classifies_digits_and_generates_them():
    """With its own defaults; without top-down errors W does not learn, and generates nothing."""
    configs = [
        single(["algorithm=bpc", "train.epochs=10", "train.eval_every=10", *extra])
        for extra in ([], ["algorithm.generative_weight=0"])
    ]
    outcomes = train(configs, mode="map")
    both, discriminative = (outcome.metrics for outcome in outcomes)
    accuracy, error = "test_accuracy_final", "test_generation_rmse_final"
    assert both[accuracy] > 0.9 and both[accuracy] > discriminative[accuracy] - 0.03
    assert both[error] < discriminative[error] / 2
    weights = {k: v for k, v in outcomes[0].arrays.items() if k.startswith("weights/")}
    assert weights["weights/top_down/0/W"].shape[0] == 10, "those that generate are kept, too"
    assert both["parameters"] == sum(v.size for v in weights.values())
