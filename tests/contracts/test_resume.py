"""A fit of any guide that was killed after an epoch ends as one that was never stopped, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import wiu_pyro as wiu
from tests.contracts.test_guides import GUIDES
from wiu_pyro import guides
from wiu_pyro.infer import draw_weights
from wiu_pyro.infer.training import Training
from wiu_pyro.testing import small_classifier

pytestmark = pytest.mark.slow

EPOCHS = 6


class Killed(BaseException):
    """Nothing on the way may catch it."""


def fit(name: str, **options):
    guide_class = getattr(guides, name)
    torch.manual_seed(0)
    model, data = small_classifier(num_data=40, dropout=0.25 if getattr(guide_class, "needs_dropout", False) else 0.0)
    return wiu.fit(model, guide_class(model), data, epochs=EPOCHS, batch_size=16, seed=1, **options)


@pytest.mark.parametrize("name", GUIDES)
def test_killed_fit_of_a_guide_ends_the_same(name, tmp_path, monkeypatch):
    whole = fit(name)
    train = Training._train_epoch

    def cut(self, bar):
        train(self, bar)
        if self.epoch == EPOCHS - 1:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_train_epoch", cut)
        with pytest.raises(Killed):
            fit(name, checkpoint=tmp_path / "fit.ckpt")
    assert list(tmp_path.iterdir())
    again = fit(name, checkpoint=tmp_path / "fit.ckpt")
    assert not list(tmp_path.iterdir())
    assert np.array_equal(whole.losses, again.losses)
    draws = [list(draw_weights(found, num_samples=3, seed=0)) for found in (whole, again)]
    for one, other in zip(*draws, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[site], other[site]) for site in one)
