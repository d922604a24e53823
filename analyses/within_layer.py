"""
Within a layer: along what do the weights differ?
=================================================

Ten thousand weights of one layer are not equally uncertain. Do they differ by the unit they lead to, by the input they
read, by their place in a kernel, or each for itself? Two networks on MNIST, five seeds each, under several posteriors.
"""

import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

import wiu_pyro as wiu

# %%
# The tables were saved from the five trainings; ``make answers`` computes them again.

answers = wiu.report.read_answers(Path(sys.argv[0]).resolve().parents[1] / "docs" / "measured" / "answers")

# %%
# Sums of squares
# ---------------
# The spread of log sd over a layer's weights is split, exactly, into what lies between output units, between inputs,
# between kernel positions, and what is left from weight to weight. A layer whose bar is all orange has inputs that
# matter and inputs that do not, whatever unit reads them.


def side_by_side(network, quantity):
    """Draw the shares of each posterior's spread in a row."""
    tables = answers.tables(network, "within_layer")
    height = 1.1 + 0.4 * next(iter(tables.values())).sizes["layer"]
    figure, axes = plt.subplots(1, len(tables), figsize=(3.1 * len(tables), height), layout="constrained", sharex=True)
    for ax, (name, table) in zip(axes, tables.items()):
        wiu.plots.within_layer(table, quantity, ax=ax)
        ax.set_title(name, loc="left", fontsize=10)
        ax.get_legend().remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    plt.show()


side_by_side("mnist_mlp", "log_sd_to_prior")

# %%

side_by_side("mnist_lenet", "log_sd_to_prior")

# %%
# In words:

for found in wiu.report.findings(answers, "within_layer"):
    print(textwrap.fill(str(found), width=100, subsequent_indent="    "))

# %%
# The whole of one statement, with its intervals and the units that the data say nothing about:

table = answers.table("mnist_lenet", "within_layer", "laplace-diag")
print(textwrap.fill(wiu.diagnostics.within_statement(table), width=100))

# %%
# A finding, or the shape of the approximation?
# ---------------------------------------------
# Where the data outweigh the prior, as in a last layer, the variances of a Kronecker-factored posterior are about an
# outer product of an input side and an output side: little *can* lie from weight to weight. Mean field and the exact
# diagonal are free to differ weight by weight. Where they too show inputs, it is the network; how much is left from
# weight to weight is the approximation's to say:

for name, table in answers.tables("mnist_mlp", "within_layer").items():
    rest = table[["share", "share_low", "share_high"]].sel(quantity="log_sd_to_prior", part="rest").mean("chain")
    print(f"{name}\n{rest.to_dataframe()[list(rest)].round(2)}\n")

# %%
# Signal-to-noise adds the means. Laplace has them from a point estimate; a mean field finds its own, and may find
# others.

side_by_side("mnist_mlp", "log_snr")

# %%
# The two sides of KFAC
# ---------------------
# The factors say which side carries the uncertainty: eigenvalues of each, relative to the prior. Where a line falls
# below one, the data say less than the prior does, in all the directions further right.

wiu.plots.within_layer(answers.table("mnist_mlp", "within_layer", "laplace-kfac"))
plt.show()

# %%
# Seen on the image
# -----------------
# What an input of the first layer is, we can see: a pixel. Its weights return to the prior where the pixels are always
# black. One network, by two posteriors, beside the sd of the pixels themselves.

for name in ("laplace-kfac", "mean-field"):
    wiu.plots.input_map(answers.table("mnist_mlp", "input_map", name).isel(chain=0))
    plt.show()
