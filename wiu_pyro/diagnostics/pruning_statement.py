"""How many weights can go, in words: what `wiu_pyro.interventions.prune` found, and what that rests on."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats

from wiu_pyro import metrics
from wiu_pyro.diagnostics.magnitude_statement import ALIKE
from wiu_pyro.diagnostics.wording import closing, listed
from wiu_pyro.errors import SchemaError

__all__ = ["NAMES", "best_criterion", "pruning_statement"]

NAMES = {
    "signal_to_noise": "signal-to-noise",
    "kl": "KL from the prior",
    "bayesian_model_reduction": "Bayesian model reduction",
    "magnitude": "size",
    "brain_surgeon": "the optimal brain surgeon",
    "random": "chance",
}
FEWEST_KEPT = 20  # weights, below which two rankings are not compared
PROCEDURES = {
    "one_shot": "in one shot",
    "compensated": "with the others following",
    "fine_tuned": "after fine-tuning",
}


def pruning_statement(table: xr.Dataset) -> str:
    """Return how many weights can go, by which criterion, from which layer, and whether the criterion matters.

    Parameters
    ----------
    table : Dataset
        What `wiu_pyro.interventions.prune` returned, or the same from a file.

    Returns
    -------
    str

    Raises
    ------
    SchemaError
        If the table is another one.
    """
    if "safe_sparsity" not in table or "error_difference" not in table:
        raise SchemaError(
            "A table with 'safe_sparsity' and 'error_difference' is needed, but this has "
            f"{', '.join(map(str, table.data_vars))}. Pass what wiu_pyro.interventions.prune returned."
        )
    sentences = [
        _safe(table),
        *_other_procedures(table),
        _most_removed(table),
        _rankings(table),
        _layers(table),
        _evidence(table),
        _basis(table),
        *closing(table),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def best_criterion(table: xr.Dataset, procedure: str = "one_shot") -> str:
    """Return the criterion that lets most weights go, all ranked together; of several the first in the table.

    Parameters
    ----------
    table : Dataset
    procedure : str

    Returns
    -------
    str
    """
    safe = _all_together(_safe_values(table), procedure)
    return str(safe["criterion"].values[int(safe.values.argmax())])


def _safe_values(table: xr.Dataset, prefix: str = "") -> xr.DataArray:
    """Return safe sparsities: over seeds where the table has that, else the smallest of the networks'."""
    if f"seeds_{prefix}safe_sparsity" in table:
        return table[f"seeds_{prefix}safe_sparsity"]
    values = table[f"{prefix}safe_sparsity"]
    return values.min("chain") if "chain" in values.dims else values


def _all_together(values: xr.DataArray, procedure: str = "one_shot") -> xr.DataArray:
    """Return the part of an array that speaks of the mean network and one procedure, all layers ranked together."""
    ranking = "global" if "global" in values["ranking"].values else values["ranking"].values[0]
    return values.sel(procedure=procedure, ranking=ranking, network="mean")


def _safe(table: xr.Dataset) -> str:
    safe = _all_together(_safe_values(table))
    groups: dict[float, list[str]] = {}
    for name, value in zip(safe["criterion"].values, safe.values, strict=True):
        groups.setdefault(float(value), []).append(NAMES.get(str(name), str(name)))
    margin = f"{_points(table.attrs['margin'])} percentage points"
    if set(groups) == {0.0}:
        return (
            f"No share of the weights on the list, from {_share(float(table['sparsity'][0]))} up, is shown to be "
            f"removable in one shot with the error rising by less than {margin}.{_too_few(table)}"
        )
    ordered = sorted(groups, reverse=True)
    texts = [f"{_share(value) if value else 'none'} by {' and '.join(groups[value])}" for value in ordered]
    return f"Removable in one shot, with the error shown to rise by less than {margin}: {', '.join(texts)}."


def _too_few(table: xr.Dataset) -> str:
    """Say where no network whatever could pass the test over images."""
    num, attrs = int(table.attrs["num_images"]), table.attrs
    reach = float(stats.norm.isf(1 - float(attrs["level"])))
    if "seeds_safe_sparsity" in table or metrics.paired_score(1, 0, num, difference=float(attrs["margin"])) < -reach:
        return ""
    return f" With {num:,} images not even a network that changed no prediction could be shown to stay within it."


def _other_procedures(table: xr.Dataset) -> list[str]:
    found = []
    for procedure in table["procedure"].values:
        if procedure != "one_shot":
            safe = _all_together(_safe_values(table), str(procedure))
            top = int(safe.values.argmax())
            by = NAMES.get(str(safe["criterion"].values[top]), "")
            value = float(safe[top])
            found.append(f"{PROCEDURES[str(procedure)].capitalize()}: {_share(value) if value else 'none'} by {by}.")
    return found


def _most_removed(table: xr.Dataset) -> str:
    """Return error and rise at the safe sparsity of the best criterion; where there is none, at the least share."""
    name = best_criterion(table)
    safe = float(_all_together(_safe_values(table)).max())
    # a saved table has its shares in full and the safe one in single precision
    share = float(table["sparsity"].sel(sparsity=safe, method="nearest")) if safe else float(table["sparsity"][0])
    prefix = "seeds_" if "seeds_error" in table else ""
    at = {"criterion": name, "sparsity": share}
    error = float(_all_together(table[f"{prefix}error"]).sel(at))
    key = f"{prefix}error_difference"
    rise = float(_all_together(table[key]).sel(at))
    text = f"At {_share(share)} removed by {NAMES.get(name, name)} the error is {_points(error)} %, {_signed(rise)}"
    if f"{key}_low" in table:
        low, high = (float(_all_together(table[f"{key}_{end}"]).sel(at)) for end in ("low", "high"))
        text += f" ({_signed(low)} to {_signed(high)})"
    return f"{text} percentage points beside the unpruned network."


def _rankings(table: xr.Dataset) -> str:
    names = table["criterion"].values
    if "kept_in_common" not in table or not {"signal_to_noise", "magnitude"} <= set(names):
        return ""
    common = table["kept_in_common"].sel(criterion="signal_to_noise", other="magnitude")
    common = common.min("chain") if "chain" in common.dims else common
    kept = (1 - common["sparsity"]) * _num_weights(table)
    common = common.isel(sparsity=np.flatnonzero(kept.values >= FEWEST_KEPT))
    if not common.size:
        return ""
    place = int(common.values.argmin())
    least, share = float(common[place]), float(common["sparsity"][place])
    verdict = "coincide" if least >= ALIKE else "part"
    only = "at least" if least >= ALIKE else "only"
    return (
        f"Ranking by signal-to-noise and by size {verdict}: of the weights kept they have {only} {_share(least)} in "
        f"common (at {_share(share)} removed)."
    )


def _num_weights(table: xr.Dataset) -> float:
    counts = table["num_candidates"]
    return float((counts.min("chain") if "chain" in counts.dims else counts).sum())


def _layers(table: xr.Dataset) -> str:
    if "layer_safe_sparsity" not in table or table.sizes["layer"] < 2:
        return ""
    name = best_criterion(table)
    safe = _safe_values(table, "layer_").sel(criterion=name)
    texts = [
        f"{_share(value) if value else 'none'} in '{layer}'"
        for layer, value in zip(safe["layer"].values.tolist(), safe.values.astype(float).tolist(), strict=True)
    ]
    return f"One layer pruned alone, by {NAMES.get(name, name)}: {listed(texts)}."


def _evidence(table: xr.Dataset) -> str:
    if "evidence_sparsity" not in table or not np.isfinite(table["evidence_sparsity"].values).all():
        return ""
    shares = np.atleast_1d(table["evidence_sparsity"].values)
    text = " to ".join(dict.fromkeys(_share(float(share)) for share in (shares.min(), shares.max())))
    return f"By its own evidence the model is better without {text} of the weights, each taken by itself."


def _basis(table: xr.Dataset) -> str:
    num, images = int(table.attrs["num_networks"]), int(table.attrs["num_images"])
    level = f"{100 * float(table.attrs['level']):g} %"
    if "seeds_safe_sparsity" in table:
        return (
            f"Tested one-sided at {level} over {num} seeds on the same {images:,} images, each criterion by itself, "
            "share after share up to the first failure."
        )
    inside = "one network" if num == 1 else f"each of {num} networks"
    return (
        f"Tested one-sided at {level} within {inside} over {images:,} images, each criterion by itself, share after "
        "share up to the first failure; whether another seed would show the same is not tested."
    )


def _share(value: float) -> str:
    """Write a share in percent, as exactly as the list of shares has it."""
    return f"{round(100 * value, 1):g} %"


def _points(value: float) -> str:
    return f"{100 * value:.2f}"


def _signed(value: float) -> str:
    return f"{round(100 * value, 2) + 0:+.2f}".replace("-", "−")
