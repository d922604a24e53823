"""Weight noise as output noise: the distribution of each datum's output, and the objective, stay what they are."""

from __future__ import annotations

import functools

import pytest
import torch
from pyro import poutine
from torch import nn
from torch.func import functional_call, jacrev, vmap

from wiu_pyro.errors import ModelError
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.guides.output_noise import RULES
from wiu_pyro.guides.weight_draw import DrawSource
from wiu_pyro.nn import BayesianNetwork, Normal

F64 = torch.float64
SAME = ("local", "local_antithetic", "flipout", "reparam")  # of one expectation


class Total(nn.Module):
    """Sums over positions, (batch, channels, ...) to (batch, channels): correlation between them shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).sum(2)


class Turned(nn.Module):
    """Moves the features of a sequence to the front, as `Total` wants them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mT


LAYERS = {
    "linear": (lambda: nn.Linear(3, 2), (3,)),
    "linear-no-bias": (lambda: nn.Linear(3, 2, bias=False), (3,)),
    "sequence": (lambda: nn.Linear(3, 2), (2, 3)),
    "conv1d": (lambda: nn.Conv1d(2, 2, 2), (2, 3)),
    "conv2d": (lambda: nn.Conv2d(1, 2, 2, stride=2, padding=1), (1, 3, 3)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (1, 2, 2, 3)),
    "grouped": (lambda: nn.Conv2d(2, 2, 2, groups=2, dilation=2), (2, 4, 3)),
    "circular": (lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False), (1, 2, 2)),
}


def sampled_output(layer: nn.Module, x: torch.Tensor, scales: dict[str, torch.Tensor], rule: str) -> torch.Tensor:
    weights = {
        name: DrawSource(value.detach(), scales[name], RULES[rule]).draw() for name, value in layer.named_parameters()
    }
    return functional_call(layer, weights, (x,))


def output_covariance(layer: nn.Module, x: torch.Tensor, scales: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return J diag(variances) J' for each datum: a layer is linear in its weights, so this is exact."""
    weights = {name: value.detach() for name, value in layer.named_parameters()}
    outputs = vmap(jacrev(lambda values, one: functional_call(layer, values, (one[None],)).flatten()), (None, 0))
    total = torch.zeros(())
    for name, jacobian in outputs(weights, x).items():
        flat = jacobian.flatten(2)  # (batch, outputs, numel)
        total = total + (flat * scales[name].square().reshape(-1)) @ flat.mT
    return total


def noise(name: str, rule: str, *, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return draws of each datum's output less its mean, (num, data, outputs), and their exact covariance."""
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double()
    x = torch.randn(4, *shape, dtype=F64)
    scales = {key: torch.rand(value.shape, dtype=F64) + 0.1 for key, value in layer.named_parameters()}
    with torch.no_grad():
        draws = torch.stack([sampled_output(layer, x, scales, rule) for _ in range(num)])
        return (draws - layer(x)).flatten(2), output_covariance(layer, x, scales)


@pytest.mark.slow
@pytest.mark.parametrize("rule", SAME)
@pytest.mark.parametrize("name", LAYERS)
def test_output_of_each_datum_has_the_covariance_its_weights_give_it(name, rule):
    found, wanted = noise(name, rule, num=1000)
    assert (found.mean(0).abs() <= 5 * found.std(0) / 1000**0.5 + 1e-12).all()
    products = torch.einsum("sno,snp->snop", found, found)
    error = products.std(0) / 1000**0.5
    assert ((products.mean(0) - wanted).abs() <= 5 * error + 1e-9).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "grouped", "circular", "sequence"])
def test_noise_of_each_position_alone_has_its_variance_and_no_covariance_with_the_next(name):
    found, wanted = noise(name, "local_positions", num=1000)
    products = torch.einsum("sno,snp->snop", found, found)
    error = products.std(0) / 1000**0.5
    variances = torch.diag_embed(wanted.diagonal(dim1=-2, dim2=-1))
    assert ((products.mean(0) - variances).abs() <= 5 * error + 1e-9).all()
    assert not torch.allclose(variances, wanted)  # as the weights' own noise would have


@pytest.mark.parametrize("name", LAYERS)
def test_opposite_noise_of_the_halves_cancels_in_convolutions(name):
    found, _ = noise(name, "local_antithetic", num=3)
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double()
    x = torch.randn(1, *shape, dtype=F64).expand(2, *shape)  # the same datum in both halves
    scales = {key: torch.ones(value.shape, dtype=F64) for key, value in layer.named_parameters()}
    with torch.no_grad():
        output = sampled_output(layer, x, scales, "local_antithetic")
        if name.startswith("linear"):
            assert not torch.allclose(output.mean(0), layer(x)[0])
        else:
            torch.testing.assert_close(output.mean(0), layer(x)[0])


NETWORKS = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), Total()), (1, 6, 6)),
    "sequence": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), Turned(), Total()), (7, 3)),
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3,)),
    "conv-norm": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), Total(), nn.Linear(2, 2)),
        (1, 5, 5),
    ),
}


def guide_for(name: str, **options) -> tuple[AutoMeanField, tuple[torch.Tensor, torch.Tensor]]:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = make().eval()
    batch = (torch.rand(8, *shape), torch.zeros(8, 2))
    model = BayesianNetwork(net, Normal(1.0), likelihood="normal", noise_scale=2.0, num_data=80).eval()
    guide = AutoMeanField(model, init_scale=0.4, **options)
    guide.setup(batch)
    return guide, batch


def losses_and_gradients(guide: AutoMeanField, batch, *, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    losses, gradients = [], []
    with poutine.block():
        for _ in range(num):
            loss = guide.negative_elbo(*batch)
            losses.append(loss.detach())
            gradients.append(torch.cat(torch.autograd.grad(loss, [guide.loc, guide.log_scale])))
    return torch.stack(losses), torch.stack(gradients)


def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return how many standard errors the means of two samples, along their first dim, are apart."""
    error = (one.var(0) / len(one) + other.var(0) / len(other)).sqrt()
    return (one.mean(0) - other.mean(0)).abs() / (error + 1e-9)


@functools.cache
def one_draw(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return losses_and_gradients(*guide_for(name, estimator="reparam"), num=300)


OTHERS = [{"estimator": name} for name in SAME if name != "reparam"] + [
    {"estimator": name, "num_particles": 3} for name in SAME
]


@pytest.mark.slow
@pytest.mark.parametrize("options", OTHERS, ids=lambda options: "-".join(str(part) for part in options.values()))
@pytest.mark.parametrize("name", NETWORKS)
def test_estimators_have_one_expectation_of_the_objective_and_of_its_gradient(name, options):
    drawn, gradients = one_draw(name)
    losses, others = losses_and_gradients(*guide_for(name, **options), num=300)
    assert apart(losses, drawn) < 5
    assert (apart(others, gradients) < 5.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_default_has_less_noise_than_one_draw_of_the_weights(name):
    _, drawn = one_draw(name)
    _, antithetic = losses_and_gradients(*guide_for(name, estimator="local_antithetic"), num=200)
    _, default = losses_and_gradients(*guide_for(name), num=200)
    assert antithetic.var(0).sum() < 0.9 * drawn.var(0).sum()
    assert default.var(0).sum() < 1.1 * drawn.var(0).sum()


@pytest.mark.slow
@pytest.mark.parametrize("estimator", SAME)
def test_noise_falls_with_the_number_of_particles(estimator):
    _, one = losses_and_gradients(*guide_for("mlp", estimator=estimator), num=200)
    _, four = losses_and_gradients(*guide_for("mlp", estimator=estimator, num_particles=4), num=200)
    assert four.var(0).sum() < 0.5 * one.var(0).sum()


@pytest.mark.slow
def test_positions_sampled_alone_have_another_expectation():
    """The noise of a sum over positions is that of independent weights at each: the expected squares differ."""
    drawn, _ = one_draw("conv")
    alone, _ = losses_and_gradients(*guide_for("conv", estimator="local_positions"), num=300)
    assert apart(alone, drawn) > 8


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.fc(x))


def test_layer_called_twice_is_refused_with_the_way_out():
    model = BayesianNetwork(Twice(), num_data=4)
    guide = AutoMeanField(model)
    batch = (torch.ones(4, 2), torch.zeros(4))
    guide.setup(batch)
    with pytest.raises(ModelError, match=r"used twice.*AutoMeanField\(model, estimator=\"reparam\"\)"):
        guide.negative_elbo(*batch)
    other = AutoMeanField(model, estimator="reparam")
    other.setup(batch)
    assert other.negative_elbo(*batch).isfinite()


class Last(nn.Module):
    def forward(self, output: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return output[0][:, -1]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(x, x, x)[0][:, 0]


OTHER_NETWORKS = {
    "recurrent": (lambda: nn.Sequential(nn.LSTM(4, 3, batch_first=True), Last()), torch.rand(6, 5, 4)),
    "attention": (lambda: nn.Sequential(Attention(), nn.Linear(4, 3)), torch.rand(6, 5, 4)),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 3)),
        torch.arange(12).view(6, 2) % 7,
    ),
    "norm": (lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 3)), torch.rand(6, 4)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose1d(1, 3, 2), nn.Tanh(), Total()), torch.rand(6, 1, 4)),
}


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("name", OTHER_NETWORKS)
def test_layers_of_another_kind_draw_their_weights(name, estimator):
    make, x = OTHER_NETWORKS[name]
    guide = AutoMeanField(BayesianNetwork(make(), num_data=6), estimator=estimator)
    batch = (x, torch.arange(6) % 3)
    guide.setup(batch)
    torch.autograd.backward(guide.negative_elbo(*batch))
    assert guide.loc.grad.isfinite().all()
    moved = [place for _, place, _ in guide.sites() if not guide.log_scale.grad[place].any()]
    assert not moved
