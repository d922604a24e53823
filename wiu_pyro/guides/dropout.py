"""Monte Carlo dropout: the dropout a network is trained with, kept on, as draws of its weights.

Gal and Ghahramani (2016), Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning, section
3: a mask on the inputs of a layer is a mask on the columns of its weight, so that a trained network with dropout is a
distribution over weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.closed_form import ClosedForm
from wiu_pyro.guides.dropout_trail import Dropout, find_dropouts
from wiu_pyro.guides.dropout_weights import DropoutWeights, Mask
from wiu_pyro.guides.point_trained import PointTrained
from wiu_pyro.guides.start import is_real
from wiu_pyro.nn import ModelStructure

__all__ = ["AutoMCDropout"]

UNCOVERED = ("error", "point")


class AutoMCDropout(PointTrained):
    r"""Weights trained as a point estimate with the network's own dropout on, and sampled by its masks.

    Training minimises −log joint density (MAP under the model's prior) with dropout as torch has it, another mask for
    each datum. A draw is one mask for all data, on the inputs of the layer that follows each dropout: columns of a
    Linear layer's weight, input channels of a convolution's after ``Dropout1d``, ``2d`` or ``3d``. ReLU, pooling and
    reshaping may stand between. A weight w under a dropout of probability p has mean w and sd
    :math:`|w| \sqrt{p / (1 - p)}`: nothing of it is learned but w, and the signal-to-noise is the same for all weights
    of a layer. Biases, and layers that no dropout precedes, are points.

    Masks are discrete, so that there is no density and no KL. Trained by `wiu_pyro.fit`, not by Pyro's `SVI`.

    Parameters
    ----------
    model : callable
        A Pyro model of a network that has dropout.
    uncovered : {"error", "point"}
        What to do where a dropout is no mask on the inputs of one layer: raise, or warn and leave it out of the draws,
        though it stays on in training.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the prior against the likelihood.

    Raises
    ------
    GuideError
        If `uncovered` or the temperature is wrong or, once the model is looked at, the network has no dropout, or one
        that cannot be a draw of weights.
    PriorError
        Once the model is looked at, if a prior depends on another site.

    Examples
    --------
    >>> from torch import nn
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    >>> guide = AutoMCDropout(BayesianNetwork(net, num_data=8))
    >>> draw = guide(torch.ones(8, 4), torch.zeros(8))
    >>> kept = draw["3.weight"].abs().sum(0) > 0  # whole columns
    """

    cli_name = "mc-dropout"
    structure_name = "mc-dropout"
    trained_by = "fit"
    needs_dropout = True
    objective = "-log joint density under dropout"
    no_density = "weights under dropout have no density: their masks are discrete"

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        uncovered: str = "error",
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> None:
        if uncovered not in UNCOVERED:
            raise GuideError(f"Unknown uncovered='{uncovered}'. {near_matches(uncovered, UNCOVERED)}")
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.uncovered = uncovered
        self.dropouts: tuple[Dropout, ...] = ()

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.refuse_dependent_priors()
        found = find_dropouts(self.model, self.point_estimate(), args)
        self.dropouts = tuple(dropout for dropout in found if not self._refused(dropout, found))
        if not self.dropouts:
            self._refuse_network(found)
        for number, dropout in enumerate(self.dropouts):
            for place, columns in enumerate(dropout.columns.values()):  # buffers, to move with the guide
                self.register_buffer(f"columns_{number}_{place}", columns, persistent=False)

    def _refused(self, dropout: Dropout, found: list[Dropout]) -> bool:
        """Return whether a dropout is left out of the draws; raise or warn, as was asked for."""
        priors = self.structure.priors
        bounded = [site for site in dropout.columns if not is_real(priors[site].support)]
        problem = dropout.problem or (f"feeds '{bounded[0]}', whose prior has a bounded support" if bounded else "")
        if not problem:
            return False
        said = (
            f"A dropout must be a mask on the inputs of one layer to be a draw of its weights, but '{dropout.name}' "
            f"(p = {dropout.probability:g}) {problem}."
        )
        if self.uncovered == "error":
            raise GuideError(
                f"{said} Put Dropout before a Linear layer, or Dropout1d, 2d or 3d before a convolution, with nothing "
                'but ReLU, pooling and reshaping between, or leave it out of the draws: uncovered="point".'
            )
        warnings.warn(f"{said} Draws leave it out; it stays on in training.", stacklevel=6)
        return True

    def _refuse_network(self, found: list[Dropout]) -> None:
        names = ", ".join(f"'{dropout.name}'" for dropout in found)
        has = f"that of this one cannot be drawn ({names})" if found else "this one has none"
        raise GuideError(
            f"Monte Carlo dropout needs a network with dropout, but {has}. Put torch.nn.Dropout(p) before its Linear "
            "layers and train it so, or use another posterior, such as AutoMeanField."
        )

    @property
    def notes(self) -> dict[str, Any]:
        """What the file says beside: where the sds come from."""
        masks = "; ".join(f"{one.name}: p = {one.probability:g}, on {', '.join(one.columns)}" for one in self.dropouts)
        return {"sd_of": "the network's own dropout, set and not learned", "sd_learned": 0, "dropout": masks}

    def get_posterior(self, *args: Any, **kwargs: Any) -> DropoutWeights:
        """Return the distribution over the flat vector of all weights."""
        places = {name: (place, shape) for name, place, shape in self.sites()}
        masks = []
        for number, dropout in enumerate(self.dropouts):
            columns = tuple(
                (*places[site], self.get_buffer(f"columns_{number}_{place}"))
                for place, site in enumerate(dropout.columns)
            )
            masks.append(Mask(1 - dropout.probability, dropout.size, columns))
        return DropoutWeights(self.loc, tuple(masks))

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loc, self.get_posterior().variance.sqrt()

    def log_prob(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Raise: there is no density."""
        return self.get_posterior().log_prob(self.pack(weights))

    def moments(self, structure: ModelStructure) -> ClosedForm:
        """Return exact means and marginal sds; the conditional sd is not defined, for columns are dropped as one."""
        own = set(structure.parameter_sites)
        variance = self.get_posterior().variance.detach()
        mean = {site: value for site, value in self.point_estimate().items() if site in own}
        sd = {name: variance[place].view(shape).sqrt() for name, place, shape in self.sites() if name in own}
        masked = {site for dropout in self.dropouts for site in dropout.columns}
        return ClosedForm(
            mean=mean,
            sd=sd,
            sd_conditional=None,
            layer_kl={layer.name: math.nan for layer in structure.layers},
            kl_total=math.nan,
            layer_structure={
                layer.name: self.structure_name if masked & set(layer.sites.values()) else "point"
                for layer in structure.layers
            },
            factorised=False,
        )
