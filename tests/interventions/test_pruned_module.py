"""The pruned network as a plain module: the same outputs, the zeros in their place, sparse if asked."""

import io

import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn

import wiu_pyro as wiu
from tests.interventions.planted_networks import images, network_at, two_layers
from wiu_pyro.errors import DataError, ModelError
from wiu_pyro.interventions import pruned_module, pruned_weights


@pytest.mark.parametrize("sparse", [False, True])
def test_module_is_the_network_at_the_pruned_weights(sparse):
    fit, (x, _) = two_layers()
    net = pruned_module(fit, criterion="magnitude", sparsity=0.7, sparse=sparse)
    weights = pruned_weights(fit, criterion="magnitude", sparsity=0.7)
    with torch.no_grad():
        found = torch.softmax(net(x), -1).numpy()
    assert found == pytest.approx(network_at(fit, weights, x), abs=1e-5)
    removed = sum(int((weights[site] == 0).sum()) for site in ("0.weight", "2.weight"))
    assert removed == round(0.7 * (16 * 8 + 8 * 3))


def test_module_is_plain_and_trainable():
    fit, _ = two_layers(epochs=1)
    net = pruned_module(fit)
    assert type(net) is nn.Sequential
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert not list(net.named_buffers())
    assert not net.training


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")  # torch's own note on loading
def test_sparse_weights_hold_only_what_was_kept_and_pass_through_a_file():
    fit, (x, _) = two_layers(epochs=1)
    net = pruned_module(fit, criterion="magnitude", sparsity=0.75, sparse=True)
    assert net[0].weight.layout == net[2].weight.layout == torch.sparse_csr
    assert net[0].weight._nnz() + net[2].weight._nnz() == (16 * 8 + 8 * 3) // 4
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = pruned_module(fit, criterion="random", sparsity=0.75, sparse=True)
    other.load_state_dict(torch.load(file), assign=True)
    assert torch.equal(other(x), net(x))


def test_convolution_stays_dense_and_batch_statistics_come_along():
    x, labels = torch.randn(24, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model = wiu.nn.BayesianNetwork(net, prior={"0.*": wiu.nn.FanInNormal(), "4.*": wiu.nn.FanInNormal()}, num_data=24)
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), (x, labels), epochs=2)
    with torch.no_grad():
        model.net[1].running_mean.add_(5)  # another fit of the same model
    pruned = pruned_module(fit, sparse=True, sparsity=0.0)
    assert pruned[0].weight.layout == torch.strided
    assert torch.equal(pruned[1].running_mean, fit.unsampled["1.running_mean"])
    expected = wiu.infer.predict(fit, x, num_samples=2).point_mean
    assert torch.softmax(pruned(x), -1).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_model_of_pyro_modules_gives_its_weights_and_no_module():
    class Own(PyroModule):
        def __init__(self):
            super().__init__()
            self.fc = PyroModule[nn.Linear](16, 3)
            self.fc.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 16]).to_event(2))

        def forward(self, x, y=None):
            import pyro

            logits = self.fc(x)
            with pyro.plate("data", len(x)):
                pyro.sample("obs", dist.Categorical(logits=logits), obs=y)
            return logits

    model, data = Own(), images(12)
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), data, epochs=1)
    weights = pruned_weights(fit, sparsity=0.5)
    assert int((weights["fc.weight"] == 0).sum()) == 24
    with pytest.raises(ModelError, match="Load pruned_weights"):
        pruned_module(fit)


def test_share_of_one_is_refused():
    fit, _ = two_layers(epochs=1)
    with pytest.raises(DataError, match="at least 0 and below 1"):
        pruned_weights(fit, sparsity=1.0)


def test_unknown_criterion_is_refused():
    fit, _ = two_layers(epochs=1)
    with pytest.raises(DataError, match="Unknown criterion of pruning 'snr'"):
        pruned_weights(fit, criterion="snr")
