"""One pass of curvature over real images with trained weights, and what a posterior gives, beside the peers.

All go over the same batches, cut beforehand, in turns. A fit of laplace-torch or of ours includes the decomposition of
the factors, "the pass alone" does not; curvlinops and BackPACK stop at the factors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import TensorDataset

import wiu_pyro as wiu
from tests.benchmarks.bars import Bar
from tests.benchmarks.cases import networks, sequential
from wiu_pyro.datasets import load
from wiu_pyro.errors import DataError

__all__ = ["BARS", "PLAIN", "SAMPLING_BAR", "Bar", "Images", "curvature_cases", "images", "sampling_cases", "train"]

Cases = dict[str, Callable[[], object]]
Batch = tuple[torch.Tensor, torch.Tensor]
PLAIN = "forward and backward"
BATCH_SIZE = 500
NUM_DRAWS = 100


ALONE = ", the pass alone"  # without the decompositions
KFAC, TRUNCATED, DIAGONAL = "KFAC, exact GGN", "KFAC, GGN to 1e-3", "diagonal, exact GGN"
SAMPLED = "KFAC, Fisher by one sample"
BARS = (
    Bar(KFAC, ("laplace-torch KFAC",), {"mnist_mlp": 0.5, "mnist_lenet": 0.5}),
    Bar(TRUNCATED + ALONE, (PLAIN,), {"mnist_mlp": 3.0, "mnist_lenet": 4.0}),
    Bar(DIAGONAL, ("laplace-torch diagonal",), {"mnist_mlp": 0.7, "mnist_lenet": 0.7}),
    Bar(SAMPLED + ALONE, (PLAIN,), {"mnist_mlp": 2.0, "mnist_lenet": 2.4}),
)
SAMPLING_BAR = Bar("wiu_pyro", ("laplace-torch",), {"mnist_mlp": 0.5})


@dataclass(frozen=True)
class Images:
    """Images to go over, and what they are."""

    x: torch.Tensor
    y: torch.Tensor
    name: str

    @property
    def dataset(self) -> TensorDataset:
        """The data as laplace-torch asks for them."""
        return TensorDataset(self.x, self.y)

    def __iter__(self) -> Iterator[Batch]:
        return zip(self.x.split(BATCH_SIZE), self.y.split(BATCH_SIZE), strict=True)

    def first(self, num: int) -> Images:
        """Return the first of them."""
        return Images(self.x[:num], self.y[:num], self.name)


def images() -> Images:
    """Return MNIST's training images; where they are not to be had, scikit-learn's digits at MNIST's size."""
    try:
        return Images(*load("mnist", split="train").tensors, "MNIST")
    except DataError:
        x, y = load("digits", split="train").tensors
        x = nn.functional.interpolate(x, (28, 28), mode="bilinear")
        copies = -(-10_000 // len(x))
        return Images(x.repeat(copies, 1, 1, 1), y.repeat(copies), "digits enlarged, for want of MNIST")


def train(name: str, data: Images, *, epochs: int = 10) -> dict[str, torch.Tensor]:
    """Return weights of a shipped network after some epochs of Adam."""
    plain, _ = networks(name)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.x), generator=generator).split(128):
            optimiser.zero_grad()
            nn.functional.cross_entropy(plain(data.x[rows]), data.y[rows]).backward()
            optimiser.step()
    return plain.state_dict()


def _with(weights: dict[str, torch.Tensor], name: str) -> tuple[nn.Module, wiu.nn.BayesianNetwork]:
    plain, model = networks(name)
    plain.load_state_dict(weights)
    return plain.eval(), wiu.nn.BayesianNetwork(plain, prior=dict(model.site_priors), num_data=60_000).eval()


def curvature_cases(name: str, data: Images, weights: dict[str, torch.Tensor]) -> Cases:
    """Return one pass of each curvature, and one plain forward and backward pass, over the same batches.

    Parameters
    ----------
    name : str
        Of a shipped script.
    data : Images
    weights : dict of str to Tensor
        Trained, by name.

    Returns
    -------
    dict of str to callable
    """
    plain, model = _with(weights, name)
    loss = nn.CrossEntropyLoss(reduction="sum")

    def plain_pass() -> None:
        for x, y in data:
            plain.zero_grad()
            loss(plain(x), y).backward()

    guides = {
        KFAC: wiu.guides.AutoKFACLaplace(model),
        TRUNCATED: wiu.guides.AutoKFACLaplace(model, column_tolerance=1e-3),
        SAMPLED: wiu.guides.AutoKFACLaplace(model, curvature="fisher_mc"),
        "KFAC, empirical Fisher": wiu.guides.AutoKFACLaplace(model, curvature="fisher_empirical"),
        DIAGONAL: wiu.guides.AutoDiagonalLaplace(model),
        "diagonal, GGN to 1e-3": wiu.guides.AutoDiagonalLaplace(model, column_tolerance=1e-3),
        "diagonal, Fisher by one sample": wiu.guides.AutoDiagonalLaplace(model, curvature="fisher_mc"),
        "EKFAC, exact GGN": wiu.guides.AutoEKFACLaplace(model),
    }
    batches = wiu.nn.as_batches((data.x, data.y), batch_size=BATCH_SIZE)

    def fit(case: str) -> dict[str, float]:
        return {case + ALONE: guides[case].laplace_approximation(batches).curvature.seconds}

    ours = {case: lambda case=case: fit(case) for case in guides}
    return {PLAIN: plain_pass} | ours | _laplace_torch(plain, data) | _factors(plain, loss, data)


def _laplace_torch(plain: nn.Module, data: Images) -> Cases:
    """Return the fits of laplace-torch with each backend that works here."""
    from laplace import Laplace, curvature

    def fit(structure: str, backend: type) -> object:
        chain = copy.deepcopy(sequential(plain)).eval()
        la = Laplace(chain, "classification", "all", structure, backend=backend)
        la.fit(data)
        return la

    cases: Cases = {}
    for structure, title in (("kron", "KFAC"), ("diag", "diagonal")):
        for short in ("BackPackGGN", "AsdlGGN", "CurvlinopsGGN"):
            if (backend := getattr(curvature, short, None)) is None or (structure, short) == ("diag", "CurvlinopsGGN"):
                continue  # curvlinops' diagonal did not end in 100 s
            cases[f"laplace-torch {title}, {short}"] = lambda structure=structure, one=backend: fit(structure, one)
    return cases


def _factors(plain: nn.Module, loss: nn.Module, data: Images) -> Cases:
    from backpack import backpack, extend
    from backpack.extensions import KFLR, DiagGGNExact
    from curvlinops import KFACLinearOperator

    parameters, batches = list(plain.parameters()), list(data)
    extended = extend(sequential(copy.deepcopy(plain)))  # its hooks would stay with the layers
    extended_loss = extend(nn.CrossEntropyLoss(reduction="sum"))

    def curvlinops_kfac() -> None:
        operator = KFACLinearOperator(plain, loss, parameters, batches, fisher_type="type-2", check_deterministic=False)
        operator.compute_kronecker_factors()

    def backpack_pass(extension: object) -> None:
        for x, y in data:
            extended.zero_grad()
            with backpack(extension):
                extended_loss(extended(x), y).backward()

    return {
        "curvlinops KFAC, exact GGN": curvlinops_kfac,
        "BackPACK KFLR, exact GGN": lambda: backpack_pass(KFLR()),
        "BackPACK diagonal, exact GGN": lambda: backpack_pass(DiagGGNExact()),
    }


def sampling_cases(name: str, data: Images, weights: dict[str, torch.Tensor]) -> Cases:
    """Return 100 draws of all weights and all marginal variances, from KFAC posteriors that are made here."""
    from laplace import Laplace

    plain, model = _with(weights, name)
    batches = wiu.nn.as_batches((data.x, data.y), batch_size=BATCH_SIZE)
    posterior = wiu.guides.AutoKFACLaplace(model, curvature="fisher_mc").laplace_approximation(batches)
    la = Laplace(copy.deepcopy(sequential(plain)).eval(), "classification", "all", "kron")
    la.fit(data)

    def ours() -> None:
        normal = posterior.get_posterior()
        normal.rsample(torch.Size((NUM_DRAWS,)))
        assert normal.variance.shape == posterior.loc.shape

    def theirs() -> None:
        la.sample(NUM_DRAWS)
        la.posterior_precision.diag(exponent=-1)

    return {"wiu_pyro": ours, "laplace-torch": theirs}
