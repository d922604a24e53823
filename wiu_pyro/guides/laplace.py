"""What all Laplace guides share: a point estimate trained by SVI, then a Gaussian from the curvature around it.

MacKay (1992), A Practical Bayesian Framework for Backpropagation Networks; Daxberger et al. (2021), Laplace Redux. The
posterior precision is curvature / temperature + prior precision, the prior exactly as the model has it.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pyro.infer.autoguide.guides import AutoLaplaceApproximation
from torch import nn

from wiu_pyro.curvature import (
    CURVATURE_KINDS,
    Accumulated,
    DirectRule,
    LayerRule,
    OutputLikelihood,
    available_bytes,
    layers_to_differentiate,
    read,
    read_curvature_config,
    refuse_masks,
    refuse_training_mode,
    rule_for,
)
from wiu_pyro.errors import CurvatureError, LikelihoodError, ModelError, PriorError
from wiu_pyro.guides.averaging import Averaging
from wiu_pyro.guides.block_normal import AutoBlockNormal, CurvatureRecord
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.cost import Cost, LayerCost, refuse_what_does_not_fit
from wiu_pyro.guides.cost_measured import measure_cost
from wiu_pyro.guides.data_pass import DataPass
from wiu_pyro.guides.point_trained import PointTrained
from wiu_pyro.guides.prior_scales import PriorTuning, read_tuning
from wiu_pyro.guides.prior_tuning import tuned
from wiu_pyro.nn import Batches, as_batches, base_distribution, complete_num_data, run_at, weight_module
from wiu_pyro.nn.checks import check_batch, explained_run

__all__ = ["LaplaceGuide"]

Batch = tuple[torch.Tensor, ...]


class LaplaceGuide(PointTrained, AutoLaplaceApproximation):
    """Base of the Laplace guides: first a point estimate (MAP), then `laplace_approximation`.

    Trained by `SVI` or `wiu_pyro.fit` like Pyro's `AutoLaplaceApproximation`, it is a Delta at the weights' mode.

    Parameters
    ----------
    model : callable
        A Pyro model whose weights have Normal priors.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the prior against the likelihood; 1 is Bayes.
    tune_prior : {"marginal-likelihood", "cross-validation"} or PriorTuning, optional
        Choose multipliers of the prior's sd by the Laplace evidence, or, in `wiu_pyro.fit`, by held-out data. The
        model's prior stays what it is; the posterior has the tuned one.
    tune_per : {"network", "layer", "site"}
        What shares a multiplier; the network by default.
    tune_when : {"after", "online"}
        Once the weights are trained (default), or while `wiu_pyro.fit` trains them.
    **options
        The fields of `wiu_pyro.curvature.CurvatureConfig`: ``curvature="fisher_mc"``, for example.

    Raises
    ------
    GuideError
        If an option or its value is unknown, or a number is not positive.
    """

    default_predictive = "linearised"
    curvature_kinds: tuple[str, ...] = CURVATURE_KINDS

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
        tune_prior: str | PriorTuning | None = None,
        tune_per: str | None = None,
        tune_when: str | None = None,
        **options: Any,
    ) -> None:
        config = read_curvature_config(type(self).__name__, options, kinds=self.curvature_kinds)
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.config = config
        self.tuning = read_tuning(tune_prior, tune_per, tune_when)
        self.averaging: Averaging | None = None  # set while a curvature is averaged over outputs
        self._differentiated: frozenset[str] = frozenset()  # layers whose inputs and outputs show no Jacobian
        self._shows_jacobians = True  # whether the output whose Jacobian is meant is known

    @property
    def curvature_kind(self) -> str:
        """The curvature asked for, ``"ggn"`` for example."""
        return self.config.curvature

    def max_bytes(self) -> int:
        """Return the memory the posterior may take: as asked for, else 90 % of what its device has free."""
        return self.config.max_bytes or int(0.9 * available_bytes(_device(weight_module(self.model))))

    def laplace_approximation(
        self,
        data: Any,
        *labels: torch.Tensor,
        checkpoint: str | Path | None = None,
        checkpoint_seconds: float = 60.0,
        progress: bool = False,
    ) -> AutoBlockNormal:
        """Return the Gaussian guide around the present point estimate.

        Where torch.distributed is initialised (torchrun), each process takes its share of the batches and all return
        the same posterior: each must be given all the data.

        Parameters
        ----------
        data : DataLoader, Dataset, tuple of tensors, or a tensor of inputs
            The training data, gone through once; twice for eigenvalue-corrected factors.
        *labels : Tensor
            Labels, when `data` is a tensor of inputs.
        checkpoint : str or Path, optional
            A file that holds the sums of the pass under way: a call with the same weights, settings and data goes on
            from there. Removed when the posterior is made.
        checkpoint_seconds : float
            Least time between two writings; what a killed pass loses.
        progress : bool
            Show a progress bar on stderr.

        Returns
        -------
        AutoBlockNormal
            Samples weights; gives log-probabilities and exact marginal and conditional standard deviations.

        Raises
        ------
        CurvatureError
            If the network is in training mode; if no data came through a layer, or its curvature is zero or not finite;
            if the checkpoint belongs to another pass, or another process failed.
        PriorError
            If a weight's prior is not Normal, or one this structure cannot take.
        DataError
            If the data are of another kind or dtype, not finite, or have labels that do not fit the output.
        ModelError
            If the model cannot be run on the data, or a layer is called twice in one pass.
        """
        batches, batch = self._prepare(data, *labels)
        posterior = AutoBlockNormal(self, point_sites=self._point_sites(), batch=batch)
        passes = DataPass(
            batches, self, checkpoint=checkpoint, checkpoint_seconds=checkpoint_seconds, progress=progress
        )
        posterior.blocks, posterior.curvature = self._blocks(posterior, passes)
        passes.end()
        return posterior if self.tuning is None else tuned(posterior, self.tuning)

    def _prepare(self, data: Any, *labels: torch.Tensor) -> tuple[Batches, Batch]:
        """Look at model and data, refuse what has no curvature, and return all batches and the first."""
        root = weight_module(self.model)
        if root is not None:
            refuse_training_mode(root)
        batches = as_batches((data, *labels) if labels else data, device=_device(root))
        if self.prototype_trace is None:
            complete_num_data(self.model, batches)
        batch = next(iter(batches))
        with explained_run(batch):
            self.setup(batches)
            check_batch(self.structure, batch)
            self.refuse_model()
            self._look_at_layers(batch)
        return batches, batch

    @abstractmethod
    def _blocks(self, posterior: AutoBlockNormal, data: DataPass) -> tuple[tuple[Block, ...], CurvatureRecord]:
        """Go through the data and return the blocks of the posterior."""

    def refuse_model(self) -> None:
        """Raise PriorError for priors that cannot be covered; `fit` asks before it trains."""
        self.refuse_dependent_priors()
        self._require_normal_priors()

    def _require_normal_priors(self) -> None:
        point = self._point_sites()
        for name, place, _ in self.sites():
            if name not in point and not self.flat_prior().normal[place].all():
                kind = type(base_distribution(self.prototype_trace.nodes[name]["fn"])).__name__
                raise PriorError(
                    f"A Laplace guide needs Normal priors on the weights, but site '{name}' has a {kind}. "
                    "Use wiu_pyro.nn.Normal or FanInNormal there, or mean-field VI, which takes any prior."
                )

    def covered_layers(self) -> tuple[str, ...]:
        """Return the names of the layers that get a posterior; the others stay at their point estimate."""
        return tuple(layer.name for layer in self.structure.layers)

    def _point_sites(self) -> tuple[str, ...]:
        covered = self.covered_layers()
        left = [site for layer in self.structure.layers if layer.name not in covered for site in layer.sites.values()]
        return (*self.structure.other_sites, *left)

    def layer_rules(self) -> dict[str, LayerRule]:
        """Return how each layer with a posterior enters the curvature."""
        covered = self.covered_layers()
        return {
            layer.name: (DirectRule if layer.name in self._differentiated else rule_for)(layer.module, layer.shapes)
            for layer in self.structure.layers
            if layer.name in covered
        }

    def output_likelihood(
        self, batch: tuple[torch.Tensor, ...], weights: Mapping[str, torch.Tensor]
    ) -> OutputLikelihood:
        """Return the likelihood of a batch at given weights, on their graph."""
        trace, _ = run_at(self.model, weights, batch, hold_parameters=True)
        node = trace.nodes[self.structure.observed]
        refuse_masks(node["fn"], node["mask"])
        return read(node["fn"])

    def _look_at_layers(self, batch: tuple[torch.Tensor, ...]) -> None:
        """Find out which layers have to be differentiated, or raise for one that cannot have a curvature."""
        self._differentiated = frozenset()
        rules, point = self.layer_rules(), self.point_estimate()
        sites = {name: self.structure.layer_sites[name] for name in rules}
        try:
            self._differentiated = layers_to_differentiate(
                self.output_likelihood, point, batch, rules=rules, sites=sites
            )
        except (CurvatureError, LikelihoodError, ModelError) as error:
            if self.config.curvature != "hessian":
                raise
            # the Hessian takes shared layers, whose Jacobian the network shows, and any likelihood: one that is unknown
            # does not say what the network's output is
            self._differentiated = frozenset(rules)
            self._shows_jacobians = not isinstance(error, LikelihoodError)

    def cost(self, data: Any, *labels: torch.Tensor) -> Cost:
        """Return what `laplace_approximation` of these data would take; nothing large is allocated.

        Parameters
        ----------
        data : DataLoader, Dataset, tuple of tensors, or a tensor of inputs
        *labels : Tensor
            Labels, when `data` is a tensor of inputs.

        Returns
        -------
        Cost
            Memory by arithmetic, time from a few data; ``print`` shows it as a table.

        Raises
        ------
        CurvatureError
            If the network is in training mode, or no data came through a layer.
        PriorError
            If a weight's prior is not Normal.
        """
        batches, _ = self._prepare(data, *labels)
        return measure_cost(self, batches, self.planned_blocks())

    @abstractmethod
    def planned_blocks(self) -> tuple[LayerCost, ...]:
        """Return the blocks of the posterior and what they take, by arithmetic, after one look at the model."""

    @abstractmethod
    def what_fits(self, block: str) -> str:
        """Return what to do where a block takes too much, as a sentence."""

    def new_parts(self) -> dict[str, Accumulated]:
        """Return the empty curvatures that a pass would fill; none where they are one large matrix."""
        return {}

    def refuse_cost(self) -> None:
        """Raise CostError where the posterior would not fit; `fit` asks before it trains."""
        refuse_what_does_not_fit(type(self).__name__, self.planned_blocks(), self.max_bytes(), instead=self.what_fits)


def _device(root: nn.Module | None) -> torch.device | None:
    first = None if root is None else next(itertools.chain(root.parameters(), root.buffers()), None)
    return None if first is None else first.device
