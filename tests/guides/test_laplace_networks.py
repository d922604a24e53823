"""Laplace guides on small networks of the kinds people bring: residual, BatchNorm, transformer; and learned noise."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive
from pyro.nn import PyroModule, PyroSample
from torch import nn

import wiu_pyro as wiu
from tests.curvature.networks import Attention
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoEKFACLaplace, AutoFullLaplace, AutoKFACLaplace
from wiu_pyro.infer import functional_distribution
from wiu_pyro.nn import BayesianNetwork, as_batches
from wiu_pyro.schema import attrs, dataset

NUM_DATA, CLASSES = 12, 3


class Block(nn.Module):
    """A residual block with in-place activations, as in torchvision's ResNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        Block(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def conv_bn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(5, CLASSES),
    )


class Transformer(nn.Module):
    """A classifier of sentences: words and places embedded, an encoder layer, the mean decides."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 8, padding_idx=0)
        self.places = nn.Parameter(0.1 * torch.randn(5, 8))
        layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=6, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.words(x) + self.places).mean(1))


def images() -> torch.Tensor:
    return torch.randn(NUM_DATA, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def sentences() -> torch.Tensor:
    return torch.randint(7, (NUM_DATA, 5), generator=torch.Generator().manual_seed(1))


EXPECTED: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], dict[str, str]]] = {
    "residual": (
        residual,
        images,
        {"0": "kfac", "2.conv1": "kfac", "2.conv2": "kfac", "5": "kfac"}
        | dict.fromkeys(("1", "2.bn1", "2.bn2"), "diagonal"),
    ),
    "conv-bn": (conv_bn, images, {"0": "kfac", "1": "diagonal", "6": "kfac", "9": "kfac"}),
    "transformer": (
        Transformer,
        sentences,
        {"places": "diagonal", "words": "diagonal", "head": "kfac"}
        | {f"encoder.layers.0.{part}": "kfac" for part in ("linear1", "linear2")}
        | {f"encoder.layers.0.{part}": "diagonal" for part in ("self_attn", "self_attn.out_proj", "norm1", "norm2")},
    ),
}


def posterior_of(name: str, **options):
    make, inputs, _ = EXPECTED[name]
    torch.manual_seed(0)
    model, x = BayesianNetwork(make(), num_data=NUM_DATA).eval(), inputs()
    labels = torch.arange(NUM_DATA) % CLASSES
    with pytest.warns(UserWarning, match="get their exact diagonal"):
        posterior = AutoKFACLaplace(model, **options).laplace_approximation(as_batches((x, labels), batch_size=5))
    return model, posterior, x


@pytest.mark.parametrize("curvature", ["ggn", "fisher_mc", "fisher_empirical"])
@pytest.mark.parametrize("name", EXPECTED)
def test_kfac_covers_every_layer_of_the_network_and_the_rest_gets_a_diagonal(name, curvature):
    _, posterior, _ = posterior_of(name, curvature=curvature)
    assert {block.layers[0]: block.structure for block in posterior.blocks} == EXPECTED[name][2]
    variance, prior = posterior.get_posterior().variance, posterior.flat_prior().scale.square()
    assert (variance <= prior * (1 + 1e-4)).all()
    assert variance.min() > 0


@pytest.mark.parametrize("weight_sharing", ["expand", "reduce"])
@pytest.mark.parametrize("name", EXPECTED)
def test_both_predictives_of_such_a_network_are_finite(name, weight_sharing):
    model, posterior, x = posterior_of(name, weight_sharing=weight_sharing)
    assert posterior.curvature.weight_sharing == weight_sharing
    (part,) = functional_distribution(model, posterior, as_batches((x,)))
    assert torch.isfinite(part.covariance).all()
    assert (torch.linalg.eigvalsh(part.covariance) > 0).all()
    drawn = Predictive(model, guide=posterior, num_samples=2, return_sites=("obs", "_RETURN"))(x)
    assert torch.isfinite(drawn["_RETURN"]).all()


@pytest.mark.parametrize("guide_class", [AutoKFACLaplace, AutoEKFACLaplace, AutoFullLaplace])
def test_cost_of_layers_that_are_differentiated_is_said_before_the_pass(guide_class):
    make, inputs, expected = EXPECTED["transformer"]
    guide = guide_class(BayesianNetwork(make(), num_data=NUM_DATA).eval())
    cost = guide.cost((inputs(), torch.arange(NUM_DATA) % CLASSES))
    assert guide_class is AutoFullLaplace or {layer.name for layer in cost.layers} == set(expected)


@pytest.mark.filterwarnings("ignore:At most 0.001 of each layer's gradients:UserWarning")  # batches of 5 are unlike
@pytest.mark.parametrize("column_tolerance", [1e-3, 0.0])
def test_truncated_columns_and_corrected_eigenvalues_leave_the_diagonal_layers_as_they_are(column_tolerance):
    _, expected, x = posterior_of("transformer")
    torch.manual_seed(0)
    model, labels = BayesianNetwork(EXPECTED["transformer"][0](), num_data=NUM_DATA).eval(), torch.arange(NUM_DATA)
    guide = AutoEKFACLaplace(model, column_tolerance=column_tolerance)
    with pytest.warns(UserWarning, match="get their exact diagonal"):
        found = guide.laplace_approximation(as_batches((x, labels % CLASSES), batch_size=5))
    for one, other in zip(found.blocks, expected.blocks, strict=True):
        if other.structure == "diagonal":
            tolerance = 1e-4 if column_tolerance == 0 else 1e-2
            torch.testing.assert_close(one.precision.variance(), other.precision.variance(), rtol=tolerance, atol=1e-6)


def test_forms_of_weight_sharing_differ_for_convolutions():
    expand, reduce = (posterior_of("conv-bn", weight_sharing=form)[1] for form in ("expand", "reduce"))
    variance = {True: expand.blocks[0].precision.variance(), False: reduce.blocks[0].precision.variance()}
    assert not torch.allclose(variance[True], variance[False], rtol=1e-2)


def test_unknown_form_of_weight_sharing_is_refused():
    with pytest.raises(GuideError, match="Unknown weight_sharing 'reduced'.*reduce"):
        AutoKFACLaplace(BayesianNetwork(nn.Linear(2, 2)), weight_sharing="reduced")


def test_file_says_what_each_layer_got(tmp_path):
    torch.manual_seed(0)
    model, x = BayesianNetwork(Attention(), num_data=NUM_DATA), torch.randn(NUM_DATA, 3, 4)
    guide = AutoKFACLaplace(model, weight_sharing="reduce")
    with pytest.warns(UserWarning, match="MultiheadAttention attend; NonDynamicallyQuantizableLinear attend.out_proj"):
        fit = wiu.fit(model, guide, (x, torch.arange(NUM_DATA) % CLASSES), epochs=0)
    wiu.save(wiu.to_inference_data(fit, num_samples=2), tmp_path / "kfac.nc")
    idata = wiu.load(tmp_path / "kfac.nc")
    layers = dataset(idata, "layers")
    found = dict(zip(layers["layer"].values.tolist(), layers["structure"].values.tolist(), strict=True))
    assert found == {"attend": "diagonal", "attend.out_proj": "diagonal", "out": "kfac"}
    assert attrs(idata)["weight_sharing"] == "reduce"


class LearnedNoise(PyroModule):
    """A linear regression with a noise scale that is a learned parameter, or known."""

    def __init__(self, noise: str | float) -> None:
        super().__init__()
        self.fc = PyroModule[nn.Linear](4, 2, bias=False)
        self.fc.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 4]).to_event(2))
        self.noise = noise
        if noise == "module":
            self.log_noise = nn.Parameter(torch.tensor(0.5).log())

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        mean = self.fc(x)
        if self.noise == "module":
            noise = self.log_noise.exp()
        elif self.noise == "pyro":
            noise = pyro.param("noise", torch.tensor(0.5), constraint=dist.constraints.positive)
        else:
            noise = torch.tensor(self.noise)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, noise).to_event(1), obs=y)
        return mean


@pytest.mark.parametrize("guide_class", [AutoKFACLaplace, AutoFullLaplace])
@pytest.mark.parametrize("noise", ["pyro", "module"])
def test_learned_noise_is_taken_as_known(noise, guide_class):
    x = torch.randn(NUM_DATA, 4, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(NUM_DATA, 2)
    torch.manual_seed(0)
    pyro.clear_param_store()
    found, known = (
        guide_class(LearnedNoise(kind), init_loc_fn=lambda site: torch.ones(2, 4)).laplace_approximation(x, y)
        for kind in (noise, 0.5)
    )
    torch.testing.assert_close(found.get_posterior().variance, known.get_posterior().variance)
    pyro.clear_param_store()
