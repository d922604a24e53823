"""The answer in one paragraph, computed from the layer tables: where the uncertainty is, and how far to trust it.

"Determined" is measured by contraction, 1 − variance / prior variance averaged over a layer's weights: unlike the sd it
does not change when one layer is scaled up and the next one down together with their priors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wiu_pyro.report.numbers import percent
from wiu_pyro.report.posterior import Posterior

__all__ = ["TIE", "Answer", "answer", "rank_agreement"]

TIE = 0.01  # two layers whose contraction differs by less are not ranked


@dataclass(frozen=True)
class Answer:
    """The answer and what limits it.

    Parameters
    ----------
    headline : str
        One sentence.
    sentences : tuple of str
        What it rests on, posterior by posterior.
    caveats : tuple of str
        What a reader must know before using it; empty where there is nothing.
    """

    headline: str
    sentences: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it as one paragraph."""
        return " ".join((self.headline, *self.sentences, *self.caveats))


def answer(posteriors: Sequence[Posterior]) -> Answer:
    """Return where the uncertainty is, by the posteriors of one network.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    Answer
    """
    if not posteriors:
        return Answer("There is no posterior to answer from.", (), ())
    known = [posterior for posterior in posteriors if np.isfinite(posterior.column("contraction")).any()]
    if not known:
        return Answer("No layer has a posterior to rank: all are point estimates.", (), tuple(_small_print(posteriors)))
    trusted = [posterior for posterior in known if posterior.converged != "no"]
    basis = trusted or known
    sentences = [_extremes(posterior) for posterior in known]
    ranked = [posterior for posterior in basis if _tells_layers_apart(posterior)]
    if len(ranked) > 1:
        sentences.append(rank_agreement(ranked))
    return Answer(_headline(basis), tuple(sentences), tuple(_caveats(known, trusted)))


def _headline(posteriors: Sequence[Posterior]) -> str:
    if len(posteriors[0].layers) < 2:
        return f"The network has one layer with a posterior, '{posteriors[0].layers[0]}': there is nothing to rank."
    names = ", ".join(posterior.name for posterior in posteriors)
    posteriors = [posterior for posterior in posteriors if _tells_layers_apart(posterior)]
    if not posteriors:
        return f"No layer stands out: the data determine all layers about equally ({names})."
    least = {_least(posterior) for posterior in posteriors}
    if len(least) > 1:
        by_layer = ", ".join(f"'{_least(posterior)}' by {posterior.name}" for posterior in posteriors)
        return f"Where the uncertainty is depends on the posterior asked: least determined is {by_layer}."
    (layer,) = least
    who = ", ".join(posterior.name for posterior in posteriors)
    return (
        f"The uncertainty is greatest in layer '{layer}': the data determine it least, relative to its prior ({who})."
    )


def _tells_layers_apart(posterior: Posterior) -> bool:
    values = posterior.like_with_like
    return bool(np.ptp(values[np.isfinite(values)]) >= TIE)


def _least(posterior: Posterior) -> str:
    return posterior.layers[int(np.nanargmin(posterior.like_with_like))]


def _extremes(posterior: Posterior) -> str:
    contraction = posterior.column("contraction")
    most, least = int(np.nanargmax(contraction)), int(np.nanargmin(contraction))
    layers, who = posterior.layers, f"{posterior.name}{posterior.mark}"
    removed = f"{percent(contraction[most])} of the prior variance of '{layers[most]}'"
    if most == least:
        return f"{who}: the data remove {removed}."
    if contraction[most] - contraction[least] < TIE:
        return f"{who}: the data remove about as much of the prior variance in all layers."
    kept = f"{percent(contraction[least])} of that of '{layers[least]}'"
    return f"{who}: the data remove {removed}, but only {kept}."


def rank_agreement(posteriors: Sequence[Posterior]) -> str:
    """Say whether posteriors rank the layers alike, like beside like: by the conditional contraction of each.

    Parameters
    ----------
    posteriors : sequence of Posterior
        Two or more, of the same layers.

    Returns
    -------
    str
    """
    layers = posteriors[0].layers
    if any(posterior.layers != layers for posterior in posteriors):
        return "The posteriors do not have the same layers, so their rankings are not compared."
    values = np.stack([posterior.like_with_like for posterior in posteriors])  # (posterior, layer)
    names = " and ".join(posterior.name for posterior in posteriors)
    clashes = _clashes(values, layers)
    if clashes:
        return f"They do not agree on the ranking of the layers ({names}): {'; '.join(clashes)}."
    middle = values.mean(axis=0)
    order = " > ".join(f"'{layers[i]}'" for i in np.argsort(-middle, kind="stable") if np.isfinite(middle[i]))
    return f"They agree on the ranking from most to least determined: {order} ({names}, by conditional contraction)."


def _clashes(values: np.ndarray, layers: Sequence[str]) -> list[str]:
    """Name each pair of layers that one posterior puts one way round and another the other way."""
    found = []
    for first in range(len(layers)):
        for second in range(first + 1, len(layers)):
            gap = values[:, first] - values[:, second]
            if gap.max() > TIE and gap.min() < -TIE:
                found.append(f"'{layers[first]}' against '{layers[second]}'")
    return found


def _caveats(posteriors: Sequence[Posterior], trusted: Sequence[Posterior]) -> list[str]:
    unsettled = [posterior.name for posterior in posteriors if posterior not in trusted]
    lines = []
    if unsettled:
        left_out = "is left out of the ranking above" if trusted else "is all there is, so the ranking is provisional"
        lines.append(
            f"Not converged: {', '.join(unsettled)}. An unconverged fit still shows where it started, not what the "
            f"data say; it {left_out}."
        )
    unknown = [posterior.name for posterior in posteriors if posterior.converged not in ("yes", "no")]
    if unknown:
        lines.append(f"Convergence was not assessed for {', '.join(unknown)}.")
    lines += _small_print(posteriors)
    return lines


def _small_print(posteriors: Sequence[Posterior]) -> list[str]:
    lines = []
    uncovered = {str(posterior.attrs.get("not_covered", "")) for posterior in posteriors} - {""}
    if uncovered:
        lines.append(f"Not covered: {'; '.join(sorted(uncovered))}.")
    tempered = {posterior.attrs.get("temperature", 1.0) for posterior in posteriors} - {1.0}
    if tempered:
        lines.append(f"Tempered posterior (T = {', '.join(map(str, sorted(tempered)))}): not the Bayes posterior.")
    if len(posteriors[0].layers) > 1 and all(posterior.table.sizes.get("chain", 1) < 2 for posterior in posteriors):
        lines.append("One network was trained; whether another seed would rank the layers the same is not tested here.")
    return lines
