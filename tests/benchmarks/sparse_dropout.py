"""Sparse variational dropout on LeNet-300-100 and MNIST: ``python -m tests.benchmarks.sparse_dropout``.

The network 784-300-100-10 of Molchanov, Ashukha and Vetrov (2017), table 1, who remove 98.9 / 97.2 / 62.0 % of the
weights of its layers at an error of 1.92 %. Here a point estimate is trained first, under the shipped prior; from its
weights the posterior, the KL's weight rising over the first epochs; weights of log α > 3 are set to zero, the others to
their means, and MNIST's test images are classified once. No augmentation, temperature 1.
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict

import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.datasets import load

Pair = tuple[torch.Tensor, torch.Tensor]
PUBLISHED = {"fc1": 98.9, "fc2": 97.2, "fc3": 62.0}
PIXEL_MEAN_SQUARE = 0.112


def lenet_300_100() -> wiu.nn.BayesianNetwork:
    """Return the network as a Pyro model under the shipped prior, at fresh weights."""
    layers = [("flat", nn.Flatten()), ("fc1", nn.Linear(784, 300)), ("relu1", nn.ReLU()), ("fc2", nn.Linear(300, 100))]
    net = nn.Sequential(OrderedDict([*layers, ("relu2", nn.ReLU()), ("fc3", nn.Linear(100, 10))]))
    prior = {"fc1.weight": wiu.nn.FanInNormal(input_mean_square=PIXEL_MEAN_SQUARE), "*": wiu.nn.FanInNormal()}
    return wiu.nn.BayesianNetwork(net, prior=prior)


def error(model: wiu.nn.BayesianNetwork, weights: dict[str, torch.Tensor], data: Pair) -> float:
    """Return the share of images a network classifies wrong, in percent."""
    with torch.no_grad():
        output = torch.func.functional_call(model.net.eval(), weights, (data[0],))
    return 100 * float((output.argmax(1) != data[1]).double().mean())


def report(fit: wiu.Fit, test: Pair) -> str:
    """Return what is removed of each layer, beside the published shares, and the errors."""
    removed, point = fit.guide.removed(), fit.point_estimate
    pruned = {site: value * ~removed[site] if site in removed else value for site, value in point.items()}
    lines = ["layer   weights  removed %  published %"]
    for layer, published in PUBLISHED.items():
        gone = removed[f"{layer}.weight"]
        lines.append(f"{layer:<6}{gone.numel():>9,}{100 * float(gone.double().mean()):>11.2f}{published:>13.1f}")
    left = sum(int((~gone).sum()) for gone in removed.values())
    total = sum(gone.numel() for gone in removed.values())
    predicted = wiu.infer.predict(fit, test, num_samples=20)
    sampled = 100 * float((predicted.mean.argmax(1) != test[1].numpy()).mean())
    lines += [
        f"weights left: {left:,} of {total:,}, 1 in {total / left:.0f}",
        f"test error %: pruned {error(fit.model, pruned, test):.2f}, mean {error(fit.model, point, test):.2f}, "
        f"sampled {sampled:.2f}; published 1.92, pruned",
        f"-ELBO per image at the end: {fit.losses[-1] / 60_000:.4f} nats, up to the prior's constant",
        fit.convergence.detail,
    ]
    return "\n".join(lines)


def main() -> None:
    """Train, remove, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--point-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=60, help="of the posterior")
    parser.add_argument("--kl-warmup", type=int, default=10, help="epochs over which the KL's weight rises")
    options = parser.parse_args()
    train, test = (load("mnist", split=split).tensors for split in ("train", "test"))
    torch.manual_seed(options.seed)
    model = lenet_300_100()
    settings = {"seed": options.seed, "batch_size": 250, "learning_rate": 2e-3}
    began = time.perf_counter()
    point = wiu.fit(model, wiu.guides.AutoPointEstimate(model), train, epochs=options.point_epochs, **settings)
    print(f"point estimate: error {error(model, point.point_estimate, test):.2f} %", flush=True)
    guide = wiu.guides.AutoSparseVariationalDropout(model)
    fit = wiu.fit(
        model, guide, train, start=point, epochs=options.epochs, kl_warmup=options.kl_warmup, track=None, **settings
    )
    print(f"LeNet-300-100, MNIST, {options}, {(time.perf_counter() - began) / 60:.1f} minutes\n{report(fit, test)}")


if __name__ == "__main__":
    main()
