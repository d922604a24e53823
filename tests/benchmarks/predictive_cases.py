"""The linearised predictive of whole networks, beside laplace-torch's: time per image.

laplace-torch forms the Jacobian of all weights for each image, so it is timed on fewer images, in batches of the size
it is fastest at, and its time is scaled per image; ours goes over all of them. Both have Kronecker factors and come to
class probabilities by the probit approximation; ours by draws is timed beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import wiu_pyro as wiu
from tests.benchmarks.cases import networks, sequential
from tests.benchmarks.timing import ratios

__all__ = ["BARS", "OURS", "PredictiveCase", "per_image_ratios", "predictive_cases"]

BARS = {"mnist_lenet": 1 / 20, "mnist_mlp": 1 / 50}  # of laplace-torch's time
PEER_IMAGES, PEER_BATCH = 20, 10
BACKENDS = ("BackPackGGN", "CurvlinopsGGN", "AsdlGGN")
OURS = "wiu_pyro, probit"


@dataclass(frozen=True)
class PredictiveCase:
    """Something to time.

    Attributes
    ----------
    run : callable
    num_images : int
        Images that it predicts.
    """

    run: Callable[[], object]
    num_images: int


def predictive_cases(name: str, *, num_images: int = 4_000, num_peer: int = PEER_IMAGES) -> dict[str, PredictiveCase]:
    """Return the cases of one network, by name; the posteriors are made here, and not timed.

    Parameters
    ----------
    name : str
        Of a shipped script.
    num_images, num_peer : int
        Images predicted by us and by laplace-torch.

    Returns
    -------
    dict of str to PredictiveCase
    """
    plain, model = networks(name)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(num_images, 1, 28, 28, generator=generator)
    train = torch.rand(100, 1, 28, 28, generator=generator), torch.randint(10, (100,), generator=generator)
    fit = wiu.fit(model, wiu.guides.AutoKFACLaplace(model), train, epochs=0)
    cases = {
        OURS: PredictiveCase(lambda: wiu.infer.predict(fit, images, link="probit"), num_images),
        "wiu_pyro, 200 draws": PredictiveCase(lambda: wiu.infer.predict(fit, images), num_images),
    }
    for backend in BACKENDS:
        predict = _peer(sequential(plain).eval(), backend, train)
        batches = images[:num_peer].split(PEER_BATCH)
        run = lambda predict=predict, batches=batches: [predict(batch) for batch in batches]  # noqa: E731
        cases[f"laplace-torch, {backend}"] = PredictiveCase(run, min(num_peer, num_images))
    return cases


def _peer(plain: nn.Module, backend: str, train: tuple[torch.Tensor, torch.Tensor]) -> Callable[..., torch.Tensor]:
    import laplace
    from laplace import curvature

    posterior = laplace.Laplace(
        copy.deepcopy(plain),
        "classification",
        subset_of_weights="all",
        hessian_structure="kron",
        backend=getattr(curvature, backend),
    )
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*train), batch_size=50)
    posterior.fit(loader)
    posterior(train[0][:2])
    return posterior


def per_image_ratios(cases: dict[str, PredictiveCase], *, rounds: int) -> dict[str, float]:
    """Return our time per image over that of each peer, by the peer's name; and over our own by draws."""
    found = ratios({name: case.run for name, case in cases.items()}, base=OURS, rounds=rounds, warmup=0)
    ours = cases[OURS].num_images
    return {name: case.num_images / ours / found[name] for name, case in cases.items() if name != OURS}
