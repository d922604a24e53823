"""The exact curvature of a small layer beside its Kronecker approximation, before and after training, by torch.func."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import SymLogNorm
from sklearn.datasets import load_digits
from torch.func import jacrev, vmap

torch.manual_seed(0)
hidden, classes = 5, 10
digits = load_digits()
x = torch.tensor(digits.data / 16, dtype=torch.float64)
y = torch.tensor(digits.target)
net = torch.nn.Sequential(torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, classes)).double()


def train(num_steps):
    """Train the network on all digits."""
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(num_steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()


@torch.no_grad()
def last_layer_curvature():
    """Return the last layer's exact GGN (weights, weights) and its Kronecker factors A and G; the bias is a column."""
    inputs = torch.cat([net[1](net[0](x)), torch.ones(len(x), 1)], 1)  # (num_data, hidden + 1)
    weight = torch.cat([net[2].weight, net[2].bias[:, None]], 1)  # (classes, hidden + 1)
    probabilities = net(x).softmax(1)
    # exact: sum over the data of J^T H J, with J by automatic differentiation and H the softmax's own Hessian
    jacobian = vmap(jacrev(lambda w, a: w @ a), in_dims=(None, 0))(weight, inputs).flatten(2)
    hessian = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    exact = torch.einsum("ncp,ncd,ndq->pq", jacobian, hessian, jacobian)
    return exact, inputs.T @ inputs / len(x), hessian.sum(0)


def draw(axis, matrix, title):
    """Draw a matrix on a symmetric logarithmic colour scale of its own."""
    limit = matrix.abs().max().item()
    colours = SymLogNorm(linthresh=limit / 100, vmin=-limit, vmax=limit)
    axis.imshow(np.asarray(matrix), cmap="RdBu_r", norm=colours, interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set(xticks=[], yticks=[])


figure, rows = plt.subplots(2, 4, figsize=(9.0, 5.8), width_ratios=[3, 1, 1.6, 3], layout="constrained")
figure.get_layout_engine().set(h_pad=0.12)
for axes, num_steps, stage in zip(rows, (0, 150), ("before training", "after training"), strict=True):
    train(num_steps)
    exact, input_factor, grad_factor = last_layer_curvature()
    kronecker = torch.kron(grad_factor, input_factor)
    off = [((exact - other).norm() / exact.norm()).item() for other in (kronecker, exact.diag().diag())]
    draw(axes[0], exact, f"exact, {stage}: {exact.numel():,} numbers")
    draw(axes[1], input_factor, f"A: {hidden + 1} x {hidden + 1}")
    draw(axes[2], grad_factor, f"G: {classes} x {classes}")
    draw(axes[3], kronecker, f"G $\\otimes$ A: {input_factor.numel() + grad_factor.numel()} numbers")
    axes[0].set_xlabel(f"its diagonal alone: {100 * off[1]:.0f} % off", fontsize=9)
    axes[3].set_xlabel(f"{100 * off[0]:.0f} % off (Frobenius norm)", fontsize=9)
