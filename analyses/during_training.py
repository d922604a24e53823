"""
During training: when does each layer know what it knows?
=========================================================

A loss that has stopped falling says little about the uncertainty: it may still be where the training started it. We
follow both layers of a small network through the training of a variational posterior, and through that of a point
estimate, and ask when each had converged, and whether early stopping would have stopped before.
"""

import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

import wiu_pyro as wiu
from wiu_pyro.infer import TrackConfig
from wiu_pyro.nn.scripts import load_model_script

# %%
# Early stopping needs data of its own: of the 1,437 training images of scikit-learn's digits we hold back 237.

images, labels = wiu.datasets.load("digits", split="train").tensors
train, held_out = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])
script = load_model_script("digits_mlp")
model = script.build(10, 1, (8, 8))

# %%
# A variational posterior
# -----------------------
# ``track="epoch"`` keeps the layer table after each epoch. Mean field has its moments in closed form, so this takes a
# few milliseconds an epoch; the fit is the same, bit for bit, with and without.

options = {"seed": 0, "learning_rate": script.learning_rate, "track": "epoch"}
guide = wiu.guides.AutoMeanField(model)
mean_field = wiu.fit(model, guide, train, epochs=400, validation=held_out, **options)
idata = wiu.to_inference_data(mean_field, num_samples=50)
wiu.plots.evolution(idata)
plt.show()

# %%
# The sds start at a tenth of the prior's, where the guide puts them, and have a long way to go: in the first epochs the
# network learns to read digits, and only then the weights that this does not need return to the prior. A posterior
# taken early shows its start.
#
# When had it converged?
# ----------------------
# The size of the means, the sd and the KL a weight of each layer must stay within 2 % of where they were at the end of
# the full learning rate. The last 30 % of the epochs do not count: there the rate falls to zero and everything is
# flat, converged or not.

table = wiu.diagnostics.convergence(idata)
print(wiu.diagnostics.convergence_statement(table))

# %%
# The same as a map: how far each layer still was from where it settled, in tolerances. The dotted line is where early
# stopping on the held-out images would have stopped.

wiu.plots.convergence(table)
plt.show()

# %%
# The validation loss is about the predictions, and those are good long before the posterior is one. How far would the
# sds have been from their end? Here is the layer table as it stood then, and as it is at the end:

evolution = wiu.diagnostics.evolution(idata)
stop = table["early_stop_epoch"].fillna(evolution["epoch"].max())  # the end, where it would not have stopped
stopped = evolution.sel(epoch=float(stop))
for name, row in (("early stop", stopped), ("end", evolution.isel(epoch=-1))):
    figures = row[["sd_to_prior", "contraction", "kl_per_weight"]].to_dataframe()
    print(f"{name}, epoch {float(row['epoch']):.0f}\n{figures.drop(columns='epoch').round(3)}\n")

# %%
# A point estimate, five times
# ----------------------------
# A Laplace posterior is put around a point estimate when that is trained. While it is, each record puts a cheap one
# around the weights as they are: the diagonal of the curvature over the first 1,000 training images that came by. Over
# five seeds the epochs have intervals that tell the layers' order from chance.

runs = []
for seed in range(5):
    network = script.build(10, 1, (8, 8))
    options = {"seed": seed, "learning_rate": script.learning_rate, "track": TrackConfig(every=2)}
    fit = wiu.fit(network, wiu.guides.AutoDiagonalLaplace(network), train, epochs=90, validation=held_out, **options)
    runs.append(wiu.to_inference_data(fit, num_samples=50))
seeds = wiu.concat(runs)
wiu.plots.evolution(seeds)
plt.show()

# %%
# The layers' curvature keeps changing after the loss has settled: the surer the network becomes of its images, the less
# each of them says about the weights.

print(wiu.diagnostics.convergence_statement(wiu.diagnostics.convergence(seeds)))

# %%
# MNIST, two networks, five seeds each
# ------------------------------------
# The same of networks too large to train on this page; ``make answers`` trains them again. First the mean field of the
# multilayer perceptron of 2 x 400 units, lines are means over the seeds with their intervals:

answers = wiu.report.read_answers(Path(sys.argv[0]).resolve().parents[1] / "docs" / "measured" / "answers")


def curves(network, name):
    """Draw the layers through the training of one posterior, with dots where they settled."""
    settled = answers.table(network, "convergence", name)
    wiu.plots.evolution(answers.table(network, "evolution", name), settled=settled)
    plt.show()


curves("mnist_mlp", "mean-field")

# %%
# And around its point estimate:

curves("mnist_mlp", "laplace-kfac")

# %%
# LeNet-5, by mean field:

curves("mnist_lenet", "mean-field")

# %%
# When had which layer converged? The records of the point estimate are those of every Laplace posterior around it.

for found in wiu.report.findings(answers, "during_training"):
    print(textwrap.fill(str(found), width=100, subsequent_indent="    "))
