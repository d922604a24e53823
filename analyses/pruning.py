"""
How many weights can go: pruning by the posterior
=================================================

A weight whose posterior is wide around zero can be set to zero and hardly anything changes. How many can go, which
ranking finds them, and does it differ from layer to layer? Five networks that read handwritten digits are pruned.
"""

import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import wiu_pyro as wiu
from wiu_pyro.nn.scripts import load_model_script

# %%
# Five networks from five seeds
# -----------------------------
# Each gets a point estimate and from there a mean-field posterior. The prior is a scale mixture: most weights come from
# a narrow Normal, a few from a wide one, so that the posterior decides which weights are needed.

train = wiu.datasets.load("digits", split="train")
test = wiu.datasets.load("digits", split="test")
script = load_model_script("digits_mlp")
prior = wiu.nn.ScaleMixtureNormal(wide=0.7, narrow=0.03, weight_wide=0.1)

fits, laplace = [], []
for seed in range(5):
    torch.manual_seed(seed)
    model = script.build(train.num_classes, train.in_channels, train.image_size)
    options = {"seed": seed, "learning_rate": script.learning_rate}
    kfac = wiu.fit(model, wiu.guides.AutoKFACLaplace(model), train.tensors, epochs=60, **options)
    sparse = wiu.nn.BayesianNetwork(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)),
        prior,
    )
    start = dict(zip(("1.weight", "1.bias", "3.weight", "3.bias"), kfac.point_estimate.values()))
    guide = wiu.guides.AutoMeanField(sparse)
    fits.append(wiu.fit(sparse, guide, train.tensors, epochs=200, start=start, **options))
    laplace.append(kfac)

# %%
# One shot
# --------
# Weights go in the order of a criterion, the least important first, without any training afterwards. With 360 test
# images one wrong image more is 0.3 percentage points, so the margin here is one point.

options = {"train_data": train.tensors, "margin": 0.01, "sparsities": (0.25, 0.5, 0.75, 0.9, 0.95, 0.98)}
pruned = wiu.interventions.prune(fits, test.tensors, **options)
wiu.plots.pruning(pruned)
plt.show()

# %%
# In words, with what the figures rest on:

wiu.diagnostics.pruning_statement(pruned)

# %%
# The errors by criterion and share, in percent, mean over the seeds:

(100 * pruned["seeds_error"].sel(procedure="one_shot", ranking="global", network="mean")).to_pandas().round(1)

# %%
# Which layer loses its weights, where all are ranked together:

pruned["removed"].mean("chain").sel(criterion="signal_to_noise").to_pandas().round(2)

# %%
# Laplace around a point estimate
# -------------------------------
# Here the prior was no reason for weights to vanish, and fewer can go. Its posterior knows correlations: when a weight
# goes, the others can follow along them, as in the optimal brain surgeon; in a mean field nothing follows. And the rest
# can be trained on.

options |= {"criteria": ("signal_to_noise",), "sparsities": (0.5, 0.75, 0.9), "rankings": ("global",)}
after = wiu.interventions.prune(laplace, test.tensors, compensate=True, fine_tune_epochs=2, per_layer=False, **options)
wiu.plots.pruning(after)
plt.show()

# %%
# By signal-to-noise, in percent:

(100 * after["seeds_error"].sel(criterion="signal_to_noise").squeeze()).to_pandas().round(1)

# %%
# Taking the network along
# ------------------------
# The pruned network is a plain torch module, with its weights in compressed rows if asked.

net = wiu.interventions.pruned_module(fits[0], criterion="signal_to_noise", sparsity=0.9, sparse=True)
error = (net(test.images).argmax(1) != test.labels).float().mean()
print(f"{type(net).__name__}: {net[1].weight._nnz() + net[3].weight._nnz():,} of 4,736 weights, error {error:.1%}")

# %%
# MNIST: weights the data left at the prior
# -----------------------------------------
# Two larger networks, five seeds each, their tables saved; ``make answers`` computes them again. A weight is
# unidentified where nobody could tell its posterior from its prior: a KL of at most 0.01 nats. By the conditional sd,
# so that like stands beside like:

answers = wiu.report.read_answers(Path(sys.argv[0]).resolve().parents[1] / "docs" / "measured" / "answers")
for found in wiu.report.findings(answers, "pruning"):
    print(textwrap.fill(str(found), width=100, subsequent_indent="    "))

# %%
# The units of one layer are not alike: pixels that are always black leave their weights at the prior, hidden units that
# never fire leave theirs.

wiu.plots.identification(answers.table("mnist_mlp", "identification_conditional", "laplace-diag"))
plt.show()

# %%
# MNIST: how many can go
# ----------------------
# One shot, no training afterwards, five seeds. These posteriors stand under the shipped Normal prior, which gives a
# weight no reason to vanish; with a scale mixture in its place, as above, far more can go.

for name, table in answers.tables("mnist_mlp", "pruning").items():
    wiu.plots.pruning(table).figure.suptitle(name, x=0.01, ha="left", fontsize=10)
    plt.show()
