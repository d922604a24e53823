"""One weight, a skewed posterior: the exact one, Laplace's Gaussian and the mean-field one, all by quadrature."""

import matplotlib.pyplot as plt
import numpy as np
from figures.style import EXACT, LAPLACE, VI
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import norm

# Logistic regression with one weight: y = 1 with probability sigmoid(w x), prior N(0, 4^2), four separable points
inputs = np.array([-0.5, 0.6, 1.0, -1.2])
signs = np.array([-1, 1, 1, -1])
prior_sd = 4.0

grid = np.linspace(-8, 20, 20_001)
spacing = grid[1] - grid[0]


def log_joint(weight):
    """Log prior plus log likelihood at each weight, up to a constant; (num_weights,)."""
    return norm.logpdf(weight, 0, prior_sd) + log_expit(signs * inputs * weight[:, None]).sum(1)


density = np.exp(log_joint(grid) - log_joint(grid).max())
density /= density.sum() * spacing
exact_mean = (grid * density).sum() * spacing
exact_sd = np.sqrt(((grid - exact_mean) ** 2 * density).sum() * spacing)

mode = grid[density.argmax()]
certainty = expit(inputs * mode)
laplace_sd = (1 / prior_sd**2 + (inputs**2 * certainty * (1 - certainty)).sum()) ** -0.5

nodes, node_weights = np.polynomial.hermite_e.hermegauss(60)
node_weights = node_weights / node_weights.sum()


def divergence(parameters):
    """KL from the exact posterior, up to a constant, of N(parameters[0], exp(parameters[1])^2)."""
    mean, log_sd = parameters
    return -log_sd - (node_weights * log_joint(mean + np.exp(log_sd) * nodes)).sum()


vi_mean, vi_log_sd = minimize(divergence, [mode, np.log(laplace_sd)], method="Nelder-Mead").x
vi_sd = np.exp(vi_log_sd)

figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
axes.fill_between(grid, density, color=EXACT, alpha=0.12, lw=0)
axes.plot(grid, density, color=EXACT, lw=2, label=f"exact: mean {exact_mean:.2f}, sd {exact_sd:.2f}")
axes.plot(grid, norm.pdf(grid, mode, laplace_sd), color=LAPLACE, lw=2, label=f"Laplace: {mode:.2f}, {laplace_sd:.2f}")
axes.plot(grid, norm.pdf(grid, vi_mean, vi_sd), color=VI, lw=2, ls="--", label=f"VI: {vi_mean:.2f}, {vi_sd:.2f}")
axes.set(xlim=(-4, 15), ylim=(0, None), xlabel="weight", ylabel="density")
axes.legend(loc="upper right")
