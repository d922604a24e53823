"""The shipped model scripts: the networks they say they are, on images of other sizes too."""

import pytest
import torch

import wiu_pyro as wiu
from wiu_pyro.errors import ModelError
from wiu_pyro.nn import FanInNormal
from wiu_pyro.nn.scripts import load_model_script, shipped_models

NETWORKS = {
    "digits_mlp": (1, (8, 8), ["fc1", "fc2"], 4_810),
    "mnist_mlp": (1, (28, 28), ["fc1", "fc2", "fc3"], 478_410),
    "mnist_lenet": (1, (28, 28), ["conv1", "conv2", "fc1", "fc2", "fc3"], 61_706),
}


def test_every_shipped_model_is_tested_here():
    assert set(shipped_models()) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_has_the_layers_and_weights_it_says(name):
    channels, size, layers, num_weights = NETWORKS[name]
    script = load_model_script(name)
    model = script.build(10, channels, size)
    assert [path for path, module in model.net.named_modules() if path] == layers
    assert sum(model.net.get_buffer(site).numel() for site in model.site_priors) == num_weights
    assert f"{num_weights:,} weights" in script.path.read_text()
    first, *others = model.prior.values()
    assert list(model.prior) == [f"{layers[0]}.weight", "*"]
    assert first.input_mean_square < 1
    assert others == [FanInNormal()]
    assert script.data == name.partition("_")[0]
    assert script.epochs > 0


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("digits_mlp", "digits"),
        *(pytest.param(name, "mnist", marks=pytest.mark.needs_data("MNIST")) for name in ("mnist_mlp", "mnist_lenet")),
    ],
)
def test_prior_of_the_first_layer_knows_the_pixels_mean_square(name, data):
    images = wiu.datasets.load(data, split="train", download=False).images
    prior = next(iter(load_model_script(name).build(10, 1, tuple(images.shape[2:])).prior.values()))
    assert prior.input_mean_square == pytest.approx(images.square().mean().item(), rel=0.02)


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, (32, 32), 10), (1, (20, 14), 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_fits_other_images(name, channels, size, classes):
    model = load_model_script(name).build(classes, channels, size)
    assert model(torch.rand(5, channels, *size)).shape == (5, classes)


@pytest.mark.parametrize(("side", "fits"), [(12, True), (11, False)])
def test_lenet_says_which_images_are_too_small(side, fits):
    script = load_model_script("mnist_lenet")
    if fits:
        assert script.build(10, 1, (side, 28))(torch.rand(2, 1, side, 28)).shape == (2, 10)
    else:
        with pytest.raises(ModelError, match="at least 12 x 12 pixels, but these are 11 x 28"):
            script.build(10, 1, (side, 28))
