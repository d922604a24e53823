"""Two correlated weights: marginal and conditional standard deviation, and what a factorised posterior reports."""

import matplotlib.pyplot as plt
import numpy as np
from figures.style import EXACT, LAPLACE, VI
from scipy.optimize import minimize

correlation = 0.9
covariance = np.array([[1.0, correlation], [correlation, 1.0]])
precision = np.linalg.inv(covariance)
marginal_sd = np.sqrt(np.diag(covariance))
conditional_sd = 1 / np.sqrt(np.diag(precision))


def divergence(log_sd):
    """KL of the factorised N(0, diag(sd^2)) from N(0, covariance), in nats."""
    variance = np.exp(2 * log_sd)
    return 0.5 * ((np.diag(precision) * variance).sum() - 2 - np.log(variance).sum() + np.linalg.slogdet(covariance)[1])


mean_field_sd = np.exp(minimize(divergence, np.zeros(2)).x)  # found by search, not put in

angle = np.linspace(0, 2 * np.pi, 400)
circle = np.stack([np.cos(angle), np.sin(angle)])  # (2, num_points)
ellipse = np.linalg.cholesky(covariance) @ circle

figure, axes = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
for radius in (1, 2):
    axes.plot(*(radius * ellipse), color=EXACT, lw=1.8, label="exact posterior (1 and 2 sd)" if radius == 1 else None)
    mean_field = radius * mean_field_sd[:, None] * circle
    axes.plot(*mean_field, color=VI, lw=1.8, ls="--", label="mean field" if radius == 1 else None)
for height, sd, name in ((-2.3, marginal_sd[0], "marginal"), (-2.75, conditional_sd[0], "conditional")):
    axes.plot([-sd, sd], [height, height], color=LAPLACE, marker="|", lw=2)
    axes.text(sd + 0.12, height, f"{name} sd {sd:.2f}", va="center")
axes.text(-2.9, 2.6, f"mean field: sd {mean_field_sd[0]:.2f}, found by minimising the KL", color=VI)
axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="weight 1", ylabel="weight 2")
axes.legend(loc="upper left", bbox_to_anchor=(0, 0.93), fontsize=9)
