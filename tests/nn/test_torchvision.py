"""torchvision's own networks as Pyro models, unchanged: every parameter a site, every layer found."""

from collections import Counter

import pyro
import pytest
import torch
import torchvision

import wiu_pyro as wiu

NETWORKS = {
    "vgg16": ({}, {"Conv2d": 13, "Linear": 3}),
    "resnet18": ({}, {"Conv2d": 20, "BatchNorm2d": 20, "Linear": 1}),
    "vit_b_16": (
        {"image_size": 32},
        # the class token and the positions are parameters of no layer of their own; an attention is split in two
        {
            "parameter": 1,
            "Conv2d": 1,
            "Encoder": 1,
            "LayerNorm": 25,
            "MultiheadAttention": 12,
            "NonDynamicallyQuantizableLinear": 12,
            "Linear": 25,
        },
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_of_torchvisions_network_is_a_site_of_a_layer(name):
    options, modules = NETWORKS[name]
    with torch.device("meta"), pyro.validation_enabled(False):  # shapes alone: VGG-16 has 138 million weights
        net = getattr(torchvision.models, name)(num_classes=10, **options)
        model = wiu.nn.BayesianNetwork(net, num_data=100).eval()
        structure = wiu.nn.inspect_model(model, torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.long))
    assert Counter(layer.module_type for layer in structure.layers) == modules
    shapes = {
        layer.sites[part]: torch.Size(shape) for layer in structure.layers for part, shape in layer.shapes.items()
    }
    assert shapes == {site: value.shape for site, value in net.named_parameters()}
    assert structure.num_outputs == 10


def test_torchvisions_resnet_keeps_weights_and_output():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=10).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = wiu.nn.BayesianNetwork(net, num_data=100).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        _, output = wiu.nn.run_at(model, dict(net.named_parameters()), (x,))
        torch.testing.assert_close(output, net(x))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
