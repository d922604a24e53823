"""
A first look: three posteriors of one small network
===================================================

Where is the uncertainty in a network that reads handwritten digits? We train one, put three posteriors over its
weights, and look at its two layers.
"""

import arviz as az
import matplotlib.pyplot as plt

import wiu_pyro as wiu
from wiu_pyro.nn.scripts import load_model_script

# %%
# The data are scikit-learn's digits: 1,437 images to train on and 360 to test with, 8 x 8 pixels each.

train = wiu.datasets.load("digits", split="train")
test = wiu.datasets.load("digits", split="test")
train

# %%
# The network has 64 hidden units. As a Pyro model, each of its weights has a prior: N(0, 2 / fan_in) for weights,
# N(0, 1) for biases, which keeps the scale of the function the same whatever the width of a layer. The variance is
# meant for inputs of mean square 1; the pixels' is 0.235, so the first layer's prior is that much wider.

script = load_model_script("digits_mlp")
model = script.build(train.num_classes, train.in_channels, train.image_size)
for layer in wiu.nn.inspect_model(model, train.images[:2], train.labels[:2]).layers:
    print(layer.name, layer.module_type, layer.shapes)

# %%
# Fitting
# -------
# KFAC Laplace trains a point estimate and then measures the curvature around it. Diagonal Laplace starts from the
# same point estimate and needs no training of its own. Mean field is trained as a distribution, from the same
# weights.

options = {"seed": 0, "learning_rate": script.learning_rate}
kfac = wiu.fit(model, wiu.guides.AutoKFACLaplace(model), train.tensors, epochs=script.epochs, **options)
diagonal = wiu.fit(model, wiu.guides.AutoDiagonalLaplace(model), train.tensors, epochs=0, start=kfac, **options)
guide = wiu.guides.AutoMeanField(model)
mean_field = wiu.fit(model, guide, train.tensors, epochs=script.vi_epochs, start=kfac, **options)
fits = {"mean-field": mean_field, "laplace-diag": diagonal, "laplace-kfac": kfac}

# %%
# A fit says whether its loss had settled. One that had not may show its initial scale, not the data's.

for name, fit in fits.items():
    print(f"{name:13} {fit.convergence.detail}")

# %%
# One ArviZ file per posterior
# ----------------------------
# The export holds draws, exact moments, predictions on the test images and all that is needed to know what was done.

posteriors = {name: wiu.to_inference_data(fit, data=test.tensors, seed=0) for name, fit in fits.items()}
az.summary(posteriors["laplace-kfac"], kind="stats")

# %%
# ``deviation_rms`` is how far a layer's weights stray from their mean, in units of the prior's sd: near 1, the data
# said nothing about them; near 0, the data fixed them.
#
# Where is the uncertainty?
# -------------------------
# The layer table has the quantities that can be compared between layers, from the posterior's exact moments.

table = wiu.diagnostics.layer_uncertainty(posteriors["laplace-kfac"])
table.to_dataframe().T

# %%
# The same as a picture, with the distribution over each layer's weights:

wiu.plots.layer_uncertainty(posteriors["laplace-kfac"])
plt.show()

# %%
# Is that the network, or is it the approximation? Like stands beside like: mean field and diagonal Laplace report about
# the conditional sd, KFAC has both.

comparison = wiu.diagnostics.compare(posteriors)
wiu.plots.compare_layers(comparison)
plt.show()

# %%
# The predictions of each on images it has not seen:

for name, idata in posteriors.items():
    quality = wiu.diagnostics.predictive(idata)
    print(f"{name:13} accuracy {float(quality['accuracy'].squeeze()):.3f}   nll {float(quality['nll'].squeeze()):.3f}")
