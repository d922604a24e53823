"""
Is the last layer enough?
=========================

A posterior over the last layer alone is cheap: the network below is run once. What is lost by it? There are two
questions in this. What does the posterior at hand predict when the other layers are put at their mean (*restricted*)?
And what does a network predict that is Bayesian in that layer from the start (*refitted*)?
"""

import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import wiu_pyro as wiu

# %%
# A network of three layers on scikit-learn's digits, 8 x 8 pixels. Images out of distribution are their negatives:
# white ground, black ink.

train = wiu.datasets.load("digits", split="train")
test = wiu.datasets.load("digits", split="test")
negatives = 1 - test.images

torch.manual_seed(0)
net = nn.Sequential()
net.add_module("flat", nn.Flatten())
for name, sizes in {"fc1": (64, 12), "fc2": (12, 12)}.items():
    net.add_module(name, nn.Linear(*sizes))
    net.add_module(f"{name}_relu", nn.ReLU())
net.add_module("fc3", nn.Linear(12, 10))
model = wiu.nn.BayesianNetwork(
    net, prior={"fc1.weight": wiu.nn.FanInNormal(input_mean_square=0.235), "*": wiu.nn.FanInNormal()}
)

# %%
# KFAC: layers that are independent
# ---------------------------------
# A point estimate, the curvature around it, and then the predictive with each layer alone uncertain, the last two, the
# first two, all but one, all, and none: always from the same draws.

options = {"seed": 0, "learning_rate": 5e-3}
kfac = wiu.fit(model, wiu.guides.AutoKFACLaplace(model), train.tensors, epochs=150, **options)
table = wiu.interventions.stochastic_layers(
    kfac, test.tensors, ood=negatives, num_samples=60, effect_draws=30, effect_images=200
)
print(textwrap.fill(wiu.diagnostics.stochastic_layers_statement(table), width=100))

# %%
# A row is a set of layers that stay uncertain. With blocks that are independent layer by layer, and a prior that is not
# tuned, restricting and refitting are the same: the row "only fc3" is what
# ``AutoLastLayerLaplace(model, structure="kfac")`` gives.

wiu.plots.stochastic_layers(table)
plt.show()

# %%
# Whose is the variance? A layer's first-order effect is the share of the variance that would go if its weights were
# known, the total effect the share that would stay if all others were; the Shapley effect divides fairly what layers do
# together. Of a linearised network's logits the three are one number, known without a draw; of the class probabilities,
# behind the softmax, they are not.

wiu.plots.layer_effects(table)
plt.show()

# %%
# The full covariance: layers that are not independent
# ----------------------------------------------------
# With correlations between layers the two questions part. Restricted, a layer keeps its marginal variance, some of
# which other layers would have cancelled: a single layer can have more variance than all together. Refitted, the others
# are known, and its variance is the conditional one.

full = wiu.fit(model, wiu.guides.AutoFullLaplace(model), train.tensors, epochs=0, start=kfac, **options)
table = wiu.interventions.stochastic_layers(
    full, test.tensors, ood=negatives, num_samples=60, effect_draws=30, effect_images=200
)
print(textwrap.fill(wiu.diagnostics.stochastic_layers_statement(table), width=100))

# %%

wiu.plots.stochastic_layers(table)
plt.show()

# %%

wiu.plots.layer_effects(table)
plt.show()

# %%
# Mean field: refits are trained
# ------------------------------
# Here every set of layers is trained by itself, the other layers along with it as a point estimate. To save time there
# are only single layers, and few draws.

guide = wiu.guides.AutoMeanField(model)
mean_field = wiu.fit(model, guide, train.tensors, epochs=200, start=kfac, **options)
table = wiu.interventions.stochastic_layers(
    mean_field,
    test.tensors,
    ood=negatives,
    train_data=train.tensors,
    families=("only",),
    num_samples=40,
    effect_draws=20,
    effect_images=200,
)
print(textwrap.fill(wiu.diagnostics.stochastic_layers_statement(table), width=100))

# %%

wiu.plots.stochastic_layers(table)
plt.show()

# %%
# MNIST, five seeds
# -----------------
# Intervals so far are over images and draws, of one network. Whether another training would show the same takes
# several: a list of fits with different seeds in place of one, five or more, makes all intervals those over seeds. The
# tables of two networks on MNIST were saved; ``make answers`` computes them again.

answers = wiu.report.read_answers(Path(sys.argv[0]).resolve().parents[1] / "docs" / "measured" / "answers")
for found in wiu.report.findings(answers, "last_layer"):
    print(textwrap.fill(str(found), width=100, subsequent_indent="    "))

# %%
# LeNet-5, where the layers are five:

for name, table in answers.tables("mnist_lenet", "stochastic_layers").items():
    wiu.plots.stochastic_layers(table).suptitle(name, x=0.01, ha="left", fontsize=10)
    plt.show()

# %%
# And the posterior that is of the last layer alone from the start, beside the others and the deep ensemble: log
# predictive density and accuracy on the 10,000 test images.

table = answers.table("mnist_lenet", "compare")
columns = ["elpd_mean", "elpd_mean_se", "elpd_diff", "elpd_diff_se", "accuracy", "accuracy_se", "predictive"]
table[columns].to_dataframe().round(4)
