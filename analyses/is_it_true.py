"""
Is the answer true? Approximations beside the posterior itself
==============================================================

Every posterior of this toolkit is an approximation, and each says where the uncertainty is. On a network small enough
for Markov chains the posterior itself can be sampled. Which approximation finds the uncertainty where it really is, and
where does none?
"""

import textwrap

import matplotlib.pyplot as plt
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.testing import nuts_posterior

# %%
# Three kinds of scikit-learn's digits, seen through the 24 pixels that vary most: 200 images to train on, 200 to
# predict. The network has 20 hidden units, 563 weights in all.

digits = wiu.datasets.load("digits", split="train")
few = digits.labels < 3
pixels = digits.images[few].flatten(1)
kept = pixels.var(0).argsort(descending=True)[:24].sort().values
inputs = (pixels[:, kept] - pixels[:, kept].mean(0)) / pixels[:, kept].std(0)
labels = digits.labels[few]
train, test = (inputs[:200], labels[:200]), (inputs[200:400], labels[200:400])

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(24, 20), nn.Tanh(), nn.Linear(20, 3))
model = wiu.nn.BayesianNetwork(net, num_data=200)

# %%
# Four approximations, all around one point estimate.

options = {"learning_rate": 1e-2, "seed": 0}
full = wiu.fit(model, wiu.guides.AutoFullLaplace(model), train, epochs=150, **options)
fits = {"laplace-full": full}
for name, guide in {"laplace-kfac": wiu.guides.AutoKFACLaplace, "laplace-diag": wiu.guides.AutoDiagonalLaplace}.items():
    fits[name] = wiu.fit(model, guide(model), train, epochs=0, start=full, **options)
fits["mean-field"] = wiu.fit(model, wiu.guides.AutoMeanField(model), train, epochs=600, start=full, **options)
posteriors = {name: wiu.to_inference_data(fit, data=test, seed=0) for name, fit in fits.items()}
for name, fit in fits.items():
    print(f"{name:13} {fit.convergence.detail}")

# %%
# The reference: NUTS, four chains from the same point estimate. A hidden unit may change places with another, and its
# sign; each draw is moved to the copy nearest to the point estimate before single weights are looked at. Whether the
# chains had converged is asked of the network's predictions and of its weights.

reference = nuts_posterior(model, train, full, num_samples=300, warmup_steps=200, max_tree_depth=6, seed=0)
posteriors["nuts"] = wiu.to_inference_data(reference, data=test, max_weights_per_layer=None)
print(reference.convergence.detail)
print(f"Moved to another copy: {reference.notes['moved_draws']:.0%} of the draws ({reference.notes['symmetries']}).")

# %%
# The function first, then the weights
# ------------------------------------
# Two networks of quite different weights may say the same of every image. So what counts first is whether the uncertain
# images are the same ones.

table = wiu.diagnostics.agreement(posteriors, reference="nuts")
wiu.plots.agreement(table)
plt.show()

# %%
# Conditional sds stand beside conditional ones, marginal beside marginal. The grey ticks are what a perfect answer
# would reach against the reference's own noise. In words:

print(textwrap.fill(wiu.diagnostics.agreement_statement(table), width=100))

# %%
# Layer by layer, by value: how much of the prior variance is gone.

table["contraction"].to_series().unstack("posterior").round(2)

# %%
# How wide
# --------
# Where the uncertainty is and how much there is are two questions. The mean over a layer's weights of the log ratio of
# the sds, approximation over reference: below 0 it is too sure.

beside = table.isel(pair=slice(0, 4))
beside["weight_log_ratio"].to_series().unstack("pair").round(2)
