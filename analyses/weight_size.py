"""
Weight size: are large weights more certain?
============================================

Pruning removes small weights; pruning by signal-to-noise removes weights that are small beside their sd. If sds had
nothing to do with the size the two would be one. What has the size of a weight to do with its uncertainty?
"""

import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

import wiu_pyro as wiu

# %%
# The tables were saved from five trainings of each network; ``make answers`` computes them again. Like stands beside
# like: of KFAC the conditional sd is taken, which mean field and the diagonal report by their making.

answers = wiu.report.read_answers(Path(sys.argv[0]).resolve().parents[1] / "docs" / "measured" / "answers")
tables = answers.tables("mnist_mlp", "magnitude_conditional")

# %%
# The sd along the size
# ---------------------
# Weights are put into bins by \|mean\| / prior sd. Each line is the median sd of one network, five networks to a panel;
# the grey band is where the medians would stay, were the sds shuffled over the layer by whole outputs and inputs. The
# dashed line is the prior.

wiu.plots.magnitude(tables["mean-field"])
plt.show()

# %%
# The same of the posterior around a point estimate, by its exact diagonal:

wiu.plots.magnitude(tables["laplace-diag"])
plt.show()

# %%
# And of LeNet-5 by mean field:

wiu.plots.magnitude(answers.tables("mnist_lenet", "magnitude_conditional")["mean-field"])
plt.show()

# %%
# In words
# --------
# Spearman's correlation says whether larger weights have smaller sds; the slope, by how much. The share that both
# rankings keep says whether it would matter for pruning.

for found in wiu.report.findings(answers, "weight_size"):
    print(textwrap.fill(str(found), width=100, subsequent_indent="    "))

# %%
# The whole of one statement:

print(textwrap.fill(wiu.diagnostics.magnitude_statement(tables["mean-field"]), width=100))

# %%
# Marginal or conditional?
# ------------------------
# The conditional sd is what a weight's own curvature says, all others known. The marginal one lets the others move, and
# then most weights are near the prior, whatever their size. Of one and the same KFAC posterior:

for kind, name in {"conditional": "magnitude_conditional", "marginal": "magnitude"}.items():
    table = answers.table("mnist_mlp", name, "laplace-kfac")
    rows = table[["seeds_spearman", "seeds_spearman_low", "seeds_spearman_high"]].to_dataframe().round(2)
    print(f"{kind}\n{rows}\n")

# %%
# So ranking by signal-to-noise does more than ranking by size where the sds differ within a layer, and it is the
# *conditional* sds that differ. What it gains is the question of :doc:`pruning`.
