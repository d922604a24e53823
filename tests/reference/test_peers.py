"""Peers as references: curvlinops, BackPACK and laplace-torch, on networks small enough to form every matrix."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from tests.curvature.networks import CLASSES, build, captured, rules_of
from wiu_pyro.curvature import (
    BernoulliOutput,
    CategoricalOutput,
    DiagonalCurvature,
    EigenvalueCorrectedFactors,
    KroneckerFactors,
    NormalOutput,
)
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace
from wiu_pyro.infer import functional_distribution
from wiu_pyro.nn import BayesianNetwork, Normal, as_batches

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
CASES = ("linear", "mlp", "conv", "stride-padding", "uneven", "dilated")
# layers that both support: curvlinops has Linear and Conv2d without padding modes
KFAC_CASES = (*CASES, "no-bias", "same-odd", "linear-sequence")

pytestmark = [
    pytest.mark.slow,
    # BackPACK's hooks on a first layer, whose input needs no gradient
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
]


def ours(name: str):
    net, x = build(name)
    return net, x, captured(net, x, lambda likelihood, batch: likelihood.sqrt_hessian())


LOSSES = {
    "categorical": (nn.CrossEntropyLoss(reduction="sum"), CategoricalOutput, LABELS),
    # the negative log density of a Normal of variance 1/2
    "normal": (nn.MSELoss(reduction="sum"), lambda output: NormalOutput(output, torch.tensor(0.5**0.5).double()), None),
    "bernoulli": (nn.BCEWithLogitsLoss(reduction="sum"), BernoulliOutput, None),
}


def peer_kfac(net: nn.Module, x: torch.Tensor, loss: str, **options) -> torch.Tensor:
    """Return curvlinops' KFAC as a dense matrix, weight and bias of a layer in one block."""
    from curvlinops import KFACLinearOperator

    params = dict(net.named_parameters())
    function, _, labels = LOSSES[loss]
    operator = KFACLinearOperator(
        net,
        function,
        params if _takes_names(KFACLinearOperator) else list(params.values()),
        [(x, targets(x) if labels is None else labels)],
        separate_weight_and_bias=False,
        check_deterministic=False,
        **options,
    )
    return operator @ torch.eye(operator.shape[1], dtype=torch.float64)


def targets(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.one_hot(LABELS, CLASSES).to(x.dtype)


@pytest.mark.parametrize("fisher_type", ["type-2", "empirical"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weight_sharing", ["expand", "reduce"])
@pytest.mark.parametrize("name", KFAC_CASES)
def test_kronecker_factors_are_those_of_curvlinops(name, weight_sharing, loss, fisher_type):
    """Exact ("type-2") and empirical KFAC, compared as Kronecker products: the split of a scale is a convention."""
    net, x = build(name)
    dense = peer_kfac(net, x, loss, fisher_type=fisher_type, kfac_approx=weight_sharing)
    _, likelihood, labels = LOSSES[loss]
    kind = {"type-2": "ggn", "empirical": "fisher_empirical"}[fisher_type]
    seen = targets(x) if labels is None else labels
    found = captured(net, x, lambda output, batch: output.columns(kind, labels=seen), likelihood=likelihood)
    start = 0
    for layer, rule in rules_of(net).items():
        factors = KroneckerFactors(rule, weight_sharing=weight_sharing)
        factors.update(found.inputs[layer], found.grads[layer])
        joint = torch.kron(factors.grad_factor[0], factors.input_factor[0])
        places = rule.split(torch.arange(rule.numel))
        order = torch.cat([places[key].reshape(-1) for key in rule.shapes])  # ours, in the peer's order
        block = dense[start : start + rule.numel, start : start + rule.numel]
        torch.testing.assert_close(joint[order][:, order], block, rtol=1e-5, atol=1e-10)
        start += rule.numel


@pytest.mark.parametrize("name", CASES)
def test_eigenvalues_of_ekfac_are_those_of_curvlinops(name):
    """Exact ("type-2") EKFAC, weight and bias in one block; as eigenvalues and as the matrix they stand for."""
    from curvlinops import EKFACLinearOperator

    net, x, found = ours(name)
    params = dict(net.named_parameters())
    operator = EKFACLinearOperator(
        net,
        nn.CrossEntropyLoss(reduction="sum"),
        params if _takes_names(EKFACLinearOperator) else list(params.values()),
        [(x, LABELS)],
        fisher_type="type-2",
        kfac_approx="expand",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    dense = operator @ torch.eye(operator.shape[1], dtype=torch.float64)
    start = 0
    for layer, rule in rules_of(net).items():
        factors = EigenvalueCorrectedFactors(rule)
        for number in range(factors.num_passes):
            factors.update(found.inputs[layer], found.grads[layer])
            if number == 0:
                factors.end_pass(0)
        block = dense[start : start + rule.numel, start : start + rule.numel]
        theirs = torch.linalg.eigvalsh(block).clamp(min=0)
        torch.testing.assert_close(factors.squares.reshape(-1).sort().values, theirs, rtol=1e-5, atol=1e-9)
        basis = torch.kron(factors.out_basis[0], factors.in_basis[0])
        joint = (basis * factors.squares.reshape(-1)) @ basis.mT
        places = rule.split(torch.arange(rule.numel))
        order = torch.cat([places[key].reshape(-1) for key in ("weight", "bias")])
        torch.testing.assert_close(joint[order][:, order], block, rtol=1e-5, atol=1e-9)
        start += rule.numel


def _takes_names(operator: type) -> bool:
    """Whether this version of curvlinops wants parameters by name."""
    return "dict" in str(operator.__init__.__annotations__.get("params", "")).lower()


@pytest.mark.parametrize("name", CASES)
def test_diagonal_is_that_of_backpack(name):
    from backpack import backpack, extend
    from backpack.extensions import DiagGGNExact

    net, x, found = ours(name)
    extended = extend(copy.deepcopy(net))
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))
    with backpack(DiagGGNExact()):
        loss(extended(x), LABELS).backward()
    for layer, rule in rules_of(net).items():
        diagonal = DiagonalCurvature(rule)
        diagonal.update(found.inputs[layer], found.grads[layer])
        module = extended.get_submodule(layer)
        theirs = rule.join({key: getattr(module, key).diag_ggn_exact for key in rule.shapes})
        torch.testing.assert_close(diagonal.diagonal, theirs, rtol=1e-4, atol=1e-10)


STRUCTURES = {"diag": AutoDiagonalLaplace, "full": AutoFullLaplace, "kron": AutoKFACLaplace}


def functional_variances(name: str, structure: str, num_data: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    from laplace import Laplace
    from laplace.curvature import BackPackGGN

    net, x = build(name)
    net, x, labels = net.float(), x.float()[:num_data], LABELS[:num_data]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=3)
    precision = 1.7
    theirs = Laplace(
        copy.deepcopy(net),
        "classification",
        subset_of_weights="all",
        hessian_structure=structure,
        prior_precision=precision,
        backend=BackPackGGN,
    )
    theirs.fit(loader)
    _, variance = theirs._glm_predictive_distribution(x)
    model = BayesianNetwork(net, Normal(precision**-0.5), num_data=num_data)
    fit = wiu.fit(model, STRUCTURES[structure](model), (x, labels), epochs=0)
    part = next(functional_distribution(fit.model, fit.guide, as_batches((x,))))
    return part.covariance, variance.detach()


@pytest.mark.parametrize("structure", ["diag", "full"])
@pytest.mark.parametrize("name", ["mlp", "conv", "stride-padding"])
def test_functional_covariance_is_that_of_laplace_torch(name, structure):
    found, theirs = functional_variances(name, structure)
    torch.testing.assert_close(found, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_functional_covariance_of_kfac_is_that_of_laplace_torch_without_biases(name):
    """With a bias the two differ on purpose: laplace-torch gives weight and bias a block each, we one together."""
    from laplace import Laplace
    from laplace.curvature import BackPackGGN

    torch.manual_seed(0)
    width = {"linear": [4, 3], "mlp": [4, 5, 3]}[name]
    layers = [nn.Linear(one, two, bias=False) for one, two in zip(width, width[1:])]
    net = nn.Sequential(*[module for layer in layers for module in (layer, nn.Tanh())][:-1])
    x, labels = torch.randn(8, 4), torch.arange(8) % 3
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=8)
    options = {"subset_of_weights": "all", "hessian_structure": "kron", "prior_precision": 1.7, "backend": BackPackGGN}
    theirs = Laplace(copy.deepcopy(net), "classification", **options)
    theirs.fit(loader)
    _, variance = theirs._glm_predictive_distribution(x)
    model = BayesianNetwork(net, Normal(1.7**-0.5), num_data=8)
    fit = wiu.fit(model, AutoKFACLaplace(model), (x, labels), epochs=0)
    part = next(functional_distribution(fit.model, fit.guide, as_batches((x,))))
    torch.testing.assert_close(part.covariance, variance.detach(), rtol=1e-3, atol=1e-4)
