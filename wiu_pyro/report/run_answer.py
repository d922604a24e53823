"""The answer in one paragraph, computed from the layer tables: where the uncertainty is, and how far to trust it.

"Determined" is measured by contraction, 1 − variance / prior variance averaged over a layer's weights: unlike the sd it
does not change when one layer is scaled up and the next one down together with their priors. All posteriors are held
side by side by the conditional one; the marginal one stands beside it where there are correlations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wiu_pyro.report.numbers import percent
from wiu_pyro.report.posterior import Posterior

__all__ = ["TIE", "Answer", "answer", "rank_agreement"]

TIE = 0.01  # two layers whose contraction differs by less are not ranked
FAR = 1.5  # posteriors whose contractions of a layer differ by this factor do not agree on its size
BASIS = (
    "Share of the prior variance that the data remove, averaged over a layer's weights, each taken with all others "
    "known (conditional contraction):"
)


@dataclass(frozen=True)
class Answer:
    """The answer and what limits it.

    Parameters
    ----------
    headline : str
        One sentence.
    basis : str
        What the figures of the lines are.
    lines : tuple of (str, str)
        Each posterior and its figures.
    sentences : tuple of str
        Whether the posteriors agree.
    caveats : tuple of str
        What a reader must know before using it; empty where there is nothing.
    """

    headline: str
    basis: str = ""
    lines: tuple[tuple[str, str], ...] = ()
    sentences: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it as one paragraph."""
        figures = "; ".join(f"{name} {line}" for name, line in self.lines)
        parts = (self.headline, self.basis, f"{figures}." if figures else "", *self.sentences, *self.caveats)
        return " ".join(part for part in parts if part)


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
        return Answer("There is no posterior to answer from.")
    known = [posterior for posterior in posteriors if posterior.covered and not _silent(posterior)]
    silent = [
        f"{posterior.name} takes no part: {reason}." for posterior in posteriors if (reason := _silent(posterior))
    ]
    if not known:
        points = "No layer has a posterior to rank: all are point estimates."
        headline = "No posterior here says how far the data determine the layers." if silent else points
        return Answer(headline, caveats=(*silent, *_small_print(posteriors)))
    trusted = [posterior for posterior in known if posterior.converged != "no"]
    basis = _of_most_layers(trusted or known)
    ranked = [posterior for posterior in basis if _tells_layers_apart(posterior)]
    opening = "" if trusted else "Provisional, for no fit had converged: "
    return Answer(
        f"{opening}{_headline(basis)}",
        basis=BASIS,
        lines=tuple((f"{posterior.name}{posterior.mark}", _extremes(posterior)) for posterior in known),
        sentences=(rank_agreement(ranked),) if len(ranked) > 1 else (),
        caveats=(*_part_caveat(trusted or known, basis), *silent, *_size_caveat(basis), *_caveats(known, trusted)),
    )


def _silent(posterior: Posterior) -> str:
    """Return why the sds of a posterior cannot say what the data determine; empty where they can."""
    if not posterior.attrs.get("sd_learned", 1):
        return f"its sds are those of {posterior.attrs['sd_of']}"
    return str(posterior.table["contraction"].attrs.get("reason", ""))


def _of_most_layers(posteriors: Sequence[Posterior]) -> list[Posterior]:
    """Return the posteriors over the most layers: one over fewer cannot say where in the network it is."""
    most = max(len(posterior.covered) for posterior in posteriors)
    return [posterior for posterior in posteriors if len(posterior.covered) == most]


def _part_caveat(posteriors: Sequence[Posterior], basis: Sequence[Posterior]) -> list[str]:
    parts = [posterior for posterior in posteriors if posterior not in basis]
    words = "; ".join(f"{one.name}: {', '.join(map(repr, one.covered))}" for one in parts)
    return (
        [f"Of these layers alone there is a posterior, so it takes no part in the ranking: {words}."] if parts else []
    )


def _headline(posteriors: Sequence[Posterior]) -> str:
    if len(posteriors[0].covered) < 2:
        layers = ", ".join(dict.fromkeys(repr(layer) for posterior in posteriors for layer in posterior.covered))
        return f"The network has one layer with a posterior, {layers}: there is nothing to rank."
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
    """Return the contraction of the least and the most determined layer, the marginal one too where there is one."""
    values, layers = posterior.like_with_like, posterior.layers
    most, least = int(np.nanargmax(values)), int(np.nanargmin(values))
    covered = len(posterior.covered)
    if covered > 1 and values[most] - values[least] < TIE:
        which = "all layers" if covered == len(layers) else "all its layers"
        return f"about {percent(values[most])} in {which}{_kind(posterior)}"
    ends = [least] if least == most else [least, most]
    words = ", ".join(f"{percent(values[i])} in '{layers[i]}'" for i in ends)
    if "conditional_contraction" not in posterior.table:
        return f"{words}{_kind(posterior)}"
    marginal = posterior.column("contraction")
    return f"{words} (marginal: {' and '.join(percent(marginal[i]) for i in ends)})"


def _kind(posterior: Posterior) -> str:
    return " (marginal: it has no conditional one)" if _marginal_only(posterior) else ""


def _marginal_only(posterior: Posterior) -> bool:
    """Whether a posterior with correlations came without conditional sds, its moments estimated from draws."""
    return "conditional_contraction" not in posterior.table and not posterior.table.attrs.get("factorised", 1)


def _size_caveat(posteriors: Sequence[Posterior]) -> list[str]:
    """Say where posteriors that may be compared put the contraction of a layer far apart."""
    comparable = [posterior for posterior in posteriors if not _marginal_only(posterior)]
    if len(comparable) < 2 or any(posterior.layers != comparable[0].layers for posterior in comparable):
        return []
    values = np.stack([posterior.like_with_like for posterior in comparable])  # (posterior, layer)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where((values > TIE).all(axis=0), values.max(axis=0) / values.min(axis=0), 0.0)
    layer = int(factor.argmax())
    if factor[layer] < FAR:
        return []
    low, high = int(values[:, layer].argmin()), int(values[:, layer].argmax())
    return [
        f"How much the data determine depends on the approximation: of '{comparable[0].layers[layer]}' "
        f"{percent(values[low, layer])} by {comparable[low].name}, {percent(values[high, layer])} by "
        f"{comparable[high].name}. Rely on the order of the layers, not on the size."
    ]


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
    if any(posterior.layers != layers or posterior.covered != posteriors[0].covered for posterior in posteriors):
        return "The posteriors do not have the same layers, so their rankings are not compared."
    values = np.stack([posterior.like_with_like for posterior in posteriors])  # (posterior, layer)
    names = ", ".join(posterior.name for posterior in posteriors)
    clashes = _clashes(values, layers)
    if clashes:
        return f"They do not agree on the ranking of the layers ({names}): {'; '.join(clashes)}."
    middle = values.mean(axis=0)
    order = " > ".join(f"'{layers[i]}'" for i in np.argsort(-middle, kind="stable") if np.isfinite(middle[i]))
    apart = [posterior.name for posterior in posteriors if _marginal_only(posterior)]
    by = f", of {', '.join(apart)} by the marginal one" if apart else ""
    return f"They agree on the ranking from most to least determined: {order} ({names}{by})."


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
    factorised = [posterior.name for posterior in posteriors if "contraction_sum" in posterior.table]
    if factorised:
        lines.append(
            "A conditional figure takes all other weights as known and so overstates what the data say about a weight "
            f"by itself: that is the marginal one, which {', '.join(factorised)} cannot give."
        )
    for posterior in posteriors:
        if posterior.attrs.get("sd_of"):
            lines.append(
                f"The sds of {posterior.name} are those of {posterior.attrs['sd_of']}: they do not say what "
                "the data leave open."
            )
    lines += _small_print(posteriors)
    return lines


def _small_print(posteriors: Sequence[Posterior]) -> list[str]:
    lines = []
    uncovered: dict[str, list[str]] = {}
    for posterior in posteriors:
        uncovered.setdefault(str(posterior.attrs.get("not_covered", "")), []).append(posterior.name)
    for text, names in sorted(uncovered.items()):
        if text:
            by = "" if len(names) == len(posteriors) else f" by {', '.join(names)}"
            lines.append(f"Not covered{by}: {text}.")
    tempered = {posterior.attrs.get("temperature", 1.0) for posterior in posteriors} - {1.0}
    if tempered:
        lines.append(f"Tempered posterior (T = {', '.join(map(str, sorted(tempered)))}): not the Bayes posterior.")
    if len(posteriors[0].layers) > 1 and all(posterior.table.sizes.get("chain", 1) < 2 for posterior in posteriors):
        lines.append(
            "All of it describes one network, trained once; whether another seed would rank the layers the same is not "
            "tested here."
        )
    return lines
