"""A network as Pyro's tutorials write them, trained by Pyro's SVI with the toolkit's handler around it."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal
from pyro.nn import PyroModule, PyroSample
from torch import nn

import wiu_pyro as wiu


class BayesianNet(PyroModule):
    def __init__(self, num_inputs, num_hidden):
        super().__init__()
        self.fc1 = PyroModule[nn.Linear](num_inputs, num_hidden)
        self.fc1.weight = PyroSample(dist.Normal(0.0, 1.0).expand([num_hidden, num_inputs]).to_event(2))
        self.fc1.bias = PyroSample(dist.Normal(0.0, 10.0).expand([num_hidden]).to_event(1))
        self.fc2 = PyroModule[nn.Linear](num_hidden, 1)
        self.fc2.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, num_hidden]).to_event(2))
        self.fc2.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.fc2(torch.tanh(self.fc1(x))).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def train(x, y, *, num_hidden, num_steps):
    model = BayesianNet(x.shape[1], num_hidden)
    guide = AutoDiagonalNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), loss=Trace_ELBO())
    with wiu.guides.local_reparameterization():  # the line that was added
        losses = [svi.step(x, y) for _ in range(num_steps)]
    return losses, Predictive(model, guide=guide, num_samples=100)
