"""Monte Carlo dropout: its moments by enumeration of masks, its predictions against torch's own dropout."""

from __future__ import annotations

import itertools

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.optim import Adam
from torch import nn

import wiu_pyro as wiu
from tests.guides.models import Hierarchical, PositiveWeights
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import AutoMCDropout, closed_form
from wiu_pyro.guides.dropout_weights import DropoutWeights, Mask
from wiu_pyro.infer import draw_weights
from wiu_pyro.nn import BayesianNetwork
from wiu_pyro.testing import small_classifier


def guided(net, x, y, **options):
    model = BayesianNetwork(net, num_data=len(x))
    guide = AutoMCDropout(model, **options)
    guide.setup((x, y))
    return model.eval(), guide


def data(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, *shape, generator=generator), torch.arange(5) % 2


def two_dropouts():
    torch.manual_seed(0)
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(2, 3), nn.ReLU(), nn.Dropout(0.4), nn.Linear(3, 2))


def test_moments_are_those_of_all_masks_enumerated():
    net = two_dropouts()
    model, guide = guided(net, *data(2))
    closed = closed_form(guide, guide.structure)
    mean, square = {}, {}
    for bits in itertools.product((0, 1), repeat=5):
        kept = torch.tensor(bits, dtype=torch.float64)
        chance = torch.where(kept[:2] > 0, 0.8, 0.2).prod() * torch.where(kept[2:] > 0, 0.6, 0.4).prod()
        drawn = {"1.weight": net[1].weight * kept[:2] / 0.8, "4.weight": net[4].weight * kept[2:] / 0.6}
        for site, value in drawn.items():
            mean[site] = mean.get(site, 0) + chance * value.detach()
            square[site] = square.get(site, 0) + chance * value.detach().square()
    for site in mean:
        torch.testing.assert_close(closed.mean[site].double(), mean[site], rtol=1e-6, atol=1e-7)
        sd = (square[site] - mean[site].square()).sqrt()
        torch.testing.assert_close(closed.sd[site].double(), sd, rtol=1e-5, atol=1e-6)
    assert closed.sd_conditional is None
    assert not closed.sd["1.bias"].any()
    assert closed.layer_structure == {"1": "mc-dropout", "4": "mc-dropout"}


def test_two_masks_on_one_weight_multiply_their_second_moments():
    loc = torch.tensor([2.0, -3.0])
    place = (slice(0, 2), torch.Size((1, 2)), torch.tensor([[0, 1]]))
    posterior = DropoutWeights(loc, (Mask(0.5, 2, (place,)), Mask(0.8, 2, (place,))))
    second = sum(chance * value**2 for chance, value in [(0.5 * 0.8, 1 / (0.5 * 0.8)), (1 - 0.5 * 0.8, 0.0)])
    torch.testing.assert_close(posterior.variance, loc.square() * (second - 1))


def test_columns_are_dropped_together_and_scaled():
    _, guide = guided(two_dropouts(), *data(2))
    weight = guide.point_estimate()["4.weight"]
    for draw in draw_weights(guide, num_samples=20):
        ratio = draw["4.weight"] / weight
        assert (ratio == ratio[0]).all()
        assert all(value in (0.0, pytest.approx(1 / 0.6)) for value in ratio[0].tolist())
        assert torch.equal(draw["4.bias"], guide.point_estimate()["4.bias"])


def test_draws_predict_as_torch_does_in_training_mode():
    net = two_dropouts()
    x, y = data(2)
    model, guide = guided(net, x, y)
    num = 4000
    with torch.no_grad():
        torch.manual_seed(1)
        ours = torch.stack([_output(net, draw, x) for draw in draw_weights(guide, num_samples=num)]).double()
        net.train()
        theirs = torch.stack([net(x) for _ in range(num)]).softmax(-1).double()
    for moment in (1, 2):
        one, other = ours**moment, theirs**moment
        error = ((one.var(0) + other.var(0)) / num).sqrt()
        assert ((one.mean(0) - other.mean(0)).abs() < 4 * error).all()


def _output(net, draw, x):
    net.eval()
    return torch.func.functional_call(net, draw, (x,)).softmax(-1)


def test_predictive_of_pyro_draws_masks_for_each_particle():
    x, y = data(2)
    model, guide = guided(two_dropouts(), x, y)
    with pyro.get_param_store().scope(), torch.no_grad():
        pyro.set_rng_seed(0)
        drawn = Predictive(model, guide=guide, num_samples=500, parallel=True, return_sites=["4.weight"])(x)["4.weight"]
    kept = (drawn.reshape(500, 2, 3)[:, 0] != 0).double().mean(0)
    assert ((kept - 0.6).abs() < 4 * (0.24 / 500) ** 0.5).all()


def test_training_minimises_the_joint_density_with_dropout_on():
    model, (x, y) = small_classifier(dropout=0.5)
    guide = AutoMCDropout(model, temperature=0.5)
    guide.setup((x, y))
    model.train()
    torch.manual_seed(3)
    loss = guide.negative_elbo(x, y)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)).train()
    net.load_state_dict(guide.point_estimate())
    torch.manual_seed(3)
    nll = nn.functional.cross_entropy(net(x), y, reduction="sum")
    prior = sum(fn.log_prob(guide.point_estimate()[site]).sum() for site, fn in model.prior_distributions().items())
    torch.testing.assert_close(loss, nll - 0.5 * prior)
    assert guide.loss_offset() == pytest.approx(
        0.5 * sum(-fn.log_prob(fn.mean).sum().item() for fn in model.prior_distributions().values()), rel=1e-5
    )


def test_file_says_why_there_is_no_kl_and_what_is_a_point():
    model, (x, y) = small_classifier(dropout=0.5)
    fit = wiu.fit(model, AutoMCDropout(model), (x, y), epochs=0)
    idata = wiu.to_inference_data(fit, (x, y), num_samples=10)
    layers = idata["layers"]
    assert layers["structure"].values.tolist() == ["point", "mc-dropout"]
    assert np.isnan(layers["kl"].values).all()
    assert "masks are discrete" in layers["kl"].attrs["kl_reason"]
    assert "masks are discrete" in idata["sample_stats"]["log_q"].attrs["reason"]
    assert "predictive_sampled" in wiu.schema.groups(idata)
    assert wiu.schema.attrs(idata)["dropout"] == "2: p = 0.5, on 3.weight"
    assert wiu.schema.attrs(idata)["sd_of"] == "the network's own dropout, set and not learned"
    moments = idata["moments_3"]
    assert moments.attrs["moments"] == "exact"
    np.testing.assert_allclose(moments["sd"].values[0], np.abs(moments["mean"].values[0]), rtol=1e-5)  # p = 1/2
    table = wiu.diagnostics.layer_uncertainty(idata)
    assert table["num_uncertain"].values.tolist() == [0, 15]
    assert float(table["snr_q50"].sel(layer="3")) == pytest.approx(1.0, rel=1e-5)


def test_network_without_dropout_is_refused_with_what_to_do():
    with pytest.raises(GuideError, match=r"needs a network with dropout, but this one has none. Put torch.nn.Dropout"):
        guided(nn.Linear(2, 2), *data(2))


def test_dropout_that_cannot_be_drawn_is_an_error_or_left_out():
    net = nn.Sequential(nn.Dropout(0.3), nn.Tanh(), nn.Linear(2, 3), nn.Dropout(0.4), nn.Linear(3, 2))
    with pytest.raises(GuideError, match=r"'0' \(p = 0.3\) goes into 'tanh'.*uncovered=\"point\""):
        guided(net, *data(2))
    with pytest.warns(UserWarning, match=r"'0' \(p = 0.3\) goes into 'tanh'.* it stays on in training"):
        _, guide = guided(net, *data(2), uncovered="point")
    assert closed_form(guide, guide.structure).layer_structure == {"2": "point", "4": "mc-dropout"}
    with (
        pytest.warns(UserWarning, match="Draws leave it out"),
        pytest.raises(GuideError, match=r"that of this one cannot be drawn \('0'\)"),
    ):
        guided(net[:3], *data(2), uncovered="point")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Hierarchical, PriorError, "priors that depend on nothing else, but the prior of 'fc.weight'"),
        (PositiveWeights, GuideError, "feeds 'fc.weight', whose prior has a bounded support"),
    ],
)
def test_priors_it_cannot_take_are_refused(model, error, message):
    class Dropped(model):
        def forward(self, x, y=None):
            return super().forward(nn.functional.dropout(x, 0.5, self.training), y)

    with pytest.raises(error, match=message):
        AutoMCDropout(Dropped()).setup((data(4)[0], torch.zeros(5).long()))


def test_unknown_option_is_refused():
    with pytest.raises(GuideError, match="Unknown uncovered='points'"):
        AutoMCDropout(small_classifier(dropout=0.5)[0], uncovered="points")


def test_svi_is_told_to_use_fit():
    model, batch = small_classifier(dropout=0.5)
    with pyro.get_param_store().scope():
        svi = SVI(model, AutoMCDropout(model), Adam({"lr": 0.01}), Trace_ELBO())
        with pytest.raises(GuideError, match=r"Train it with wiu_pyro.fit"):
            svi.step(*batch)


def test_density_is_refused_with_the_reason():
    _, guide = guided(two_dropouts(), *data(2))
    with pytest.raises(GuideError, match="weights under dropout have none: their masks are discrete"):
        guide.log_prob(guide.point_estimate())


def test_guide_is_moved_with_its_columns():
    _, guide = guided(two_dropouts(), *data(2))
    moved = guide.to("meta")
    assert all(buffer.device.type == "meta" for name, buffer in moved.named_buffers() if name.startswith("columns"))
