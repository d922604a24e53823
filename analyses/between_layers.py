"""
Between layers: do they differ in their uncertainty?
====================================================

Two networks that read MNIST, a multilayer perceptron of 2 x 400 hidden units and a LeNet-5, each trained from five
seeds, each under several posteriors. Is the uncertainty spread evenly over their layers? And is what we see the
network, or the approximation?
"""

import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

import wiu_pyro as wiu

# %%
# The runs take an hour or two, so their answers are kept as small tables beside the documentation: what each diagnostic
# said of each posterior, seeds along ``chain``. ``make answers`` computes them again.

answers = wiu.report.read_answers(Path(sys.argv[0]).resolve().parents[1] / "docs" / "measured" / "answers")
for network in answers.networks:
    record = answers.record(network)
    settings = record["settings"]
    print(
        f"{network}: {record['data']['num_train']:,} training images, seeds {record['seeds']}, "
        f"{settings['epochs']} epochs, {settings['vi_epochs']} of variational inference"
    )
    for name, verdicts in record["posteriors"].items():
        print(f"  {name:13} converged in {sum(bool(one['converged']) for one in verdicts)} of {len(verdicts)} seeds")

# %%
# What can be compared
# --------------------
# Raw standard deviations cannot: scale one ReLU layer up and the next one down, and the network computes the same while
# the sds have changed. What survives, if the priors are scaled along, are quantities relative to the prior.
# *Contraction* is the share of the prior variance that the data took away, 0 where they said nothing, 1 where they
# fixed the weight. *Conditional* sds (all other weights known) stand beside conditional ones, *marginal* beside
# marginal: mean field and diagonal Laplace have about the conditional ones, KFAC has both.

weights = answers.table("mnist_mlp", "compare").drop_sel(posterior="ensemble")  # which has no posterior over weights
wiu.plots.compare_layers(weights)
plt.show()

# %%
# Bars are 95 % intervals over the five seeds, together over the layers; most are narrower than the marks. A hollow mark
# is a fit whose loss had not settled: a mean field that is stopped early still shows where it began.

wiu.plots.compare_layers(answers.table("mnist_lenet", "compare").drop_sel(posterior="ensemble"))
plt.show()

# %%
# All pairs of layers
# -------------------
# Seeds are the replicates. In each network the difference between two layers is taken, and its mean over the networks
# gets an interval; all pairs hold together.

for found in wiu.report.findings(answers, "between_layers"):
    print(textwrap.fill(str(found), width=100, subsequent_indent="    "))

# %%
# By KFAC, LeNet's layers in pairs. Blue intervals leave out zero. The last panel is an effect size: of all pairs of a
# weight here and a weight there, how much more often is the one above the other?

wiu.plots.between_layers(answers.table("mnist_lenet", "between_layers", "laplace-kfac"))
plt.show()

# %%
# Network or approximation?
# -------------------------
# The first line of each network above says which differences every posterior finds, each in its own way: those are more
# likely the network's. One on which they contradict each other, beyond what seeds differ by, is an approximation's. How
# unequal a network is as a whole, the statement says too:

between = answers.table("mnist_mlp", "between_layers", "mean-field")
print(textwrap.fill(wiu.diagnostics.between_statement(between, "kl_per_weight"), width=100))

# %%
# The deep ensemble, five point estimates, has no part in this: it says how far five trainings differ in their
# predictions, but nothing of one network's weights, as the hidden units of two networks do not correspond. And all of
# them are approximations; :doc:`is_it_true` holds them to the posterior itself where that can be sampled.
