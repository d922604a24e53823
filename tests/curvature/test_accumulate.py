"""Passes that are stopped and gone on with, their memory, and what they refuse."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import weakref

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import wiu_pyro as wiu
from wiu_pyro.curvature import (
    CategoricalOutput,
    CurvaturePass,
    DataStream,
    KroneckerFactors,
    accumulate,
    backward,
    rule_for,
)
from wiu_pyro.curvature.checkpoint import Checkpoint
from wiu_pyro.errors import CurvatureError, DataError, OutputError
from wiu_pyro.guides import AutoEKFACLaplace, AutoFullLaplace, AutoKFACLaplace, AutoLaplace, AutoSubnetworkLaplace
from wiu_pyro.nn import BayesianNetwork, Normal

NUM_DATA, BATCH = 23, 5  # five batches, the last one short
FATAL = 12

GUIDES = {
    "kfac": (AutoKFACLaplace, {}),
    "kfac-sampled": (AutoKFACLaplace, {"curvature": "fisher_mc", "num_fisher_samples": 2}),
    "ekfac": (AutoEKFACLaplace, {}),
    "ekfac-sampled": (AutoEKFACLaplace, {"curvature": "fisher_mc"}),
    "mixed": (AutoLaplace, {"structure": {"0": "diagonal", "2": "ekfac"}}),
    "full": (AutoFullLaplace, {}),
    "hessian": (AutoFullLaplace, {"curvature": "hessian"}),
    "subnetwork": (AutoSubnetworkLaplace, {"num_weights": 6}),
}
PASSES = {"ekfac": 2, "ekfac-sampled": 2, "mixed": 2, "subnetwork": 2}


class Killed(Exception):
    pass


class Fragile(Dataset):
    """Data that break off when datum number FATAL, of the third batch, is asked for the `fatal`-th time."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, fatal: int = 0) -> None:
        self.x, self.y, self.fatal = x, y, fatal
        self.asked = [0] * len(x)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked[index] += 1
        if index == FATAL and self.asked[index] == self.fatal:
            raise Killed
        return self.x[index], self.y[index]


def network() -> BayesianNetwork:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return BayesianNetwork(net, Normal(0.2), num_data=NUM_DATA).eval()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NUM_DATA, 4, generator=generator), torch.randint(3, (NUM_DATA,), generator=generator)


def loader(fatal: int = 0, **options) -> DataLoader:
    return DataLoader(Fragile(*data(), fatal), batch_size=BATCH, **options)


def outcome(posterior) -> list[torch.Tensor]:
    normal = posterior.get_posterior()
    return [normal.variance, normal.entropy(), torch.tensor(posterior.curvature.log_likelihood)]


@pytest.mark.parametrize(
    ("name", "fatal_pass"), [(name, number) for name in GUIDES for number in range(PASSES.get(name, 1))]
)
def test_killed_pass_goes_on_to_the_same_bits(name, fatal_pass, tmp_path, monkeypatch):
    monkeypatch.setattr(backward, "FIRST_ROWS", 2)  # so that batches are cut, the first one otherwise
    monkeypatch.setattr(backward, "FEWEST_ROWS", 3)
    monkeypatch.setattr(backward, "CACHED_GRADS", 30)
    guide_class, options = GUIDES[name]
    model, path = network(), tmp_path / "pass.ckpt"
    torch.manual_seed(11)
    whole = guide_class(model, **options).laplace_approximation(loader())
    torch.manual_seed(11)
    with pytest.raises(Killed):
        guide_class(model, **options).laplace_approximation(
            loader(fatal_pass + 1), checkpoint=path, checkpoint_seconds=0
        )
    assert path.exists()
    torch.manual_seed(99)
    again = loader()
    posterior = guide_class(model, **options).laplace_approximation(again, checkpoint=path, checkpoint_seconds=0)
    passes_left = PASSES.get(name, 1) - fatal_pass
    assert (again.dataset.asked[9], again.dataset.asked[10]) == (passes_left - 1, passes_left)
    for found, expected in zip(outcome(posterior), outcome(whole), strict=True):
        assert torch.equal(found, expected)
    assert list(tmp_path.iterdir()) == []
    assert posterior.curvature == whole.curvature


def test_checkpoint_of_a_shuffling_loader_counts_batches_of_the_datas_own_order(tmp_path):
    model, path = network(), tmp_path / "pass.ckpt"
    whole = AutoKFACLaplace(model).laplace_approximation(loader())
    with pytest.raises(Killed):
        AutoKFACLaplace(model).laplace_approximation(loader(1, shuffle=True), checkpoint=path, checkpoint_seconds=0)
    posterior = AutoKFACLaplace(model).laplace_approximation(loader(shuffle=True), checkpoint=path)
    assert torch.equal(outcome(posterior)[0], outcome(whole)[0])


def test_fit_goes_on_with_the_pass_of_an_earlier_fit(tmp_path, monkeypatch):
    model, path = network(), tmp_path / "pass.ckpt"
    options = {"epochs": 0, "curvature_batch_size": BATCH}
    whole = wiu.fit(model, AutoKFACLaplace(model), data(), **options)
    calls, add = [], KroneckerFactors.add_inputs

    def counted(self, layer_input):
        calls.append(len(layer_input))
        if len(calls) == 6:  # of two layers, so in the third batch
            raise Killed
        add(self, layer_input)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "is_due", lambda self: True)
        patched.setattr(KroneckerFactors, "add_inputs", counted)
        with pytest.raises(Killed):
            wiu.fit(model, AutoKFACLaplace(model), data(), checkpoint=path, **options)
        again = wiu.fit(model, AutoKFACLaplace(model), data(), checkpoint=path, **options)
    assert calls[6:] == [5, 5, 5, 5, 3, 3]
    assert torch.equal(outcome(again.guide)[0], outcome(whole.guide)[0])


def stopped(path, **options) -> None:
    with pytest.raises(Killed):
        AutoKFACLaplace(network(), **options).laplace_approximation(loader(1), checkpoint=path, checkpoint_seconds=0)


def other_weights():
    model = network()
    with torch.no_grad():
        model.net[0].weight[0, 0] += 1e-6
    return AutoKFACLaplace(model), loader()


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (other_weights, "weights"),
        (lambda: (AutoKFACLaplace(network(), curvature="fisher_empirical"), loader()), "settings"),
        (lambda: (AutoKFACLaplace(network()), DataLoader(TensorDataset(*data()), batch_size=4)), "data"),
        (lambda: (AutoKFACLaplace(network()), (data()[0].flip(0), data()[1])), "data"),
    ],
)
def test_checkpoint_of_another_pass_is_refused(other, what, tmp_path):
    path = tmp_path / "pass.ckpt"
    stopped(path)
    guide, others = other()
    with pytest.raises(CurvatureError, match=f"this one's {what} differs. Remove it, or give checkpoint= another"):
        guide.laplace_approximation(others, checkpoint=path)
    assert path.exists()


def test_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(CurvatureError, match="the file cannot be read. Remove it, or give checkpoint= another path"):
        AutoKFACLaplace(network()).laplace_approximation(loader(), checkpoint=path)
    assert path.read_text() == "mine"


def test_checkpoint_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written to .*file/pass.ckpt"):
        AutoKFACLaplace(network()).laplace_approximation(
            loader(), checkpoint=tmp_path / "file" / "pass.ckpt", checkpoint_seconds=0
        )


CHILD = """
import sys, time
import torch
from tests.curvature.test_accumulate import Fragile, network, data
from torch.utils.data import DataLoader
from wiu_pyro.guides import AutoKFACLaplace

class Slow(Fragile):
    def __getitem__(self, index):
        time.sleep(0.5 if index > 5 else 0)
        return super().__getitem__(index)

loader = DataLoader(Slow(*data()), batch_size=5)
AutoKFACLaplace(network()).laplace_approximation(loader, checkpoint=sys.argv[1], checkpoint_seconds=0)
"""


@pytest.mark.slow
def test_process_that_is_killed_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "pass.ckpt"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)])
    try:
        for _ in range(600):
            if path.exists() or child.poll() is not None:
                break
            time.sleep(0.05)
        assert path.exists()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    fresh, left = loader(), loader()
    whole = AutoKFACLaplace(network()).laplace_approximation(fresh, checkpoint=tmp_path / "other.ckpt")
    again = AutoKFACLaplace(network()).laplace_approximation(left, checkpoint=path)
    assert left.dataset.asked[0] == fresh.dataset.asked[0] - 1  # looked at, but not in the pass
    assert torch.equal(outcome(again)[0], outcome(whole)[0])


def test_memory_does_not_grow_with_the_data():
    net = nn.Linear(4, 3).eval()
    rule = rule_for(net, {"weight": (3, 4), "bias": (3,)})
    seen, most = [], [0]

    def show(batches, numbers):
        passed = CurvaturePass(lambda batch: CategoricalOutput(net(batch[0])), {"": net})
        for captured in passed.run(batches, lambda likelihood, _: likelihood.sqrt_hessian(), numbers=numbers):
            seen.append(weakref.ref(captured))
            most[0] = max(most[0], sum(ref() is not None for ref in seen))
            yield captured

    def batches(start, step):
        return ((torch.randn(5, 4),) for _ in range(start, 40, step))

    accumulate({"": KroneckerFactors(rule)}, show, DataStream(batches))
    assert len(seen) == 40
    assert most[0] <= 2  # a batch and the one before it


def test_curvature_that_is_not_finite_is_named_with_layer_and_batch():
    model = network()
    x, y = data()
    x[12] = 3e20  # finite, its square is not
    with pytest.raises(CurvatureError, match="that of layer '0' is NaN or infinite since batch 2"):
        AutoKFACLaplace(model).laplace_approximation(DataLoader(TensorDataset(x, y), batch_size=BATCH))


def test_outputs_that_are_not_finite_are_named_with_their_batch():
    x, y = data()
    x[12] = float("nan")
    with pytest.raises(DataError, match="The network's output must be finite, but batch 2 gave NaN"):
        AutoKFACLaplace(network()).laplace_approximation(DataLoader(TensorDataset(x, y), batch_size=BATCH))


def dead() -> BayesianNetwork:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    nn.init.constant_(net[0].bias, -1e3)
    return BayesianNetwork(net, num_data=NUM_DATA).eval()


@pytest.mark.parametrize("name", ["kfac", "ekfac", "full"])
def test_dead_layer_is_named(name):
    with pytest.raises(
        CurvatureError, match=r"that of '0' is zero: all its gradients or inputs are zero, as before ReLU"
    ):
        GUIDES[name][0](dead()).laplace_approximation(data())


def test_dead_layer_may_keep_its_prior():
    guide = AutoKFACLaplace(dead(), zero_curvature="prior")
    with pytest.warns(UserWarning, match="that of '0' is zero.* Its posterior here is its prior"):
        posterior = guide.laplace_approximation(data())
    (block,) = (block for block in posterior.blocks if block.layers == ("0",))
    torch.testing.assert_close(block.precision.variance(), posterior.flat_prior().scale.square()[block.index])


def test_progress_bar_goes_to_stderr_and_counts_all_passes(capsys):
    AutoEKFACLaplace(network()).laplace_approximation(loader(), progress=True)
    shown = capsys.readouterr()
    assert "curvature" in shown.err
    assert "100 %" in shown.err
    assert shown.out == ""
