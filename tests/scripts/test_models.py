"""The shipped model scripts: the networks they say they are, on images of other sizes too."""

import pytest
import torch
import torchvision

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
    assert set(shipped_models()) == {*NETWORKS, "cifar_vgg"}


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
        pytest.param("cifar_vgg", "cifar10-jpg", marks=pytest.mark.needs_data("CIFAR10/cifar10-jpg.tar")),
    ],
)
def test_prior_of_the_first_layer_knows_the_pixels_mean_square(name, data):
    images = wiu.datasets.load(data, split="train", download=False)
    prior = next(iter(load_model_script(name).build(10, images.in_channels, images.image_size).prior.values()))
    mean, sd = images.channel_moments()
    mean_square = sum(m**2 + s**2 for m, s in zip(mean, sd, strict=True)) / len(mean)
    assert prior.input_mean_square == pytest.approx(mean_square, rel=0.02)


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


def vgg(arguments="", size=(32, 32)):
    return load_model_script(f"cifar_vgg{arguments}").build(10, 3, size)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_at_full_width_has_the_features_of_torchvisions(depth, batch_norm):
    peer = getattr(torchvision.models, f"vgg{depth}{'_bn' if batch_norm else ''}")
    network = load_model_script("cifar_vgg").function.__globals__["VGG"]
    with torch.device("meta"):  # shapes alone: VGG-19 has 20 million weights here, 144 million there
        wanted = peer().features
        own = network(depth, 1.0, batch_norm=batch_norm, num_classes=10, in_channels=3).features
    assert {name: value.shape for name, value in own.state_dict().items()} == {
        name: value.shape for name, value in wanted.state_dict().items()
    }
    assert [type(module) for module in own] == [type(module) for module in wanted]


def test_vgg_computes_what_torchvisions_features_compute_at_its_width():
    torch.manual_seed(0)
    net = vgg().net.eval()
    channels = [size if size == "M" else size // 4 for size in torchvision.models.vgg.cfgs["A"]]
    peer = torchvision.models.vgg.make_layers(channels, batch_norm=True).eval()
    peer.load_state_dict(net.features.state_dict())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net.classifier(peer(x).flatten(1)))


def test_vgg_at_a_quarter_of_its_width_has_the_weights_it_says():
    script = load_model_script("cifar_vgg")
    model = script.build(10, 3, (32, 32))
    num_weights = sum(model.net.get_buffer(site).numel() for site in model.site_priors)
    assert f"{num_weights:,} weights in VGG-11 with BatchNorm" in script.path.read_text()
    assert (script.data, script.title) == ("cifar10", "cifar_vgg")
    assert script.augment(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("size", [(32, 32), (40, 67)])
def test_vgg_takes_images_of_32_pixels_and_more(size):
    assert vgg(":width=0.125", size)(torch.rand(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("arguments", "size", "said"),
    [
        (":depth=12", (32, 32), "a depth of 11, 13, 16, 19, but depth is 12"),
        (":width=0.01", (32, 32), "leaves a channel in each layer, but width is 0.01"),
        ("", (28, 28), "at least 32 x 32 pixels, but these are 28 x 28"),
    ],
)
def test_vgg_says_what_it_cannot_be_built_for(arguments, size, said):
    with pytest.raises(ModelError, match=said):
        vgg(arguments, size)
