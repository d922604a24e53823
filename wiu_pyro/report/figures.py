"""The figures of the page: drawn by `wiu_pyro.plots`, kept inside the page as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure as MatplotlibFigure

from wiu_pyro import plots
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.report.captions import ALTS, caption
from wiu_pyro.report.content import Figure, FigureGroup, Section
from wiu_pyro.report.posterior import Posterior

__all__ = ["drawn", "embedded", "figure_group", "figure_of", "figure_section", "side_by_side"]

DPI = 150
COMPRESSION = 2  # of 9: a tenth larger than at 6, in a third less time
CSS_DPI = 96
MOST_LAYERS = 3  # of one posterior, in plots that show one layer
PER_LAYER = ("weight-heatmap",)
ASKED = ("magnitude", "identification")  # plots of a diagnostic of the same name, asked once for all that shows it
ELSEWHERE = (  # shown with the answer, the predictions, and the questions they answer
    "network",
    "reliability",
    "risk-coverage",
    "declined-images",
    "between-layers",
    "within-layer",
    "evolution",
    "convergence",
    "magnitude",
    "identification",
)
TITLES = {
    "layer-uncertainty": "How the weights of each layer are spread",
    "weight-heatmap": "Weight by weight",
    "input-map": "Seen from the image: the first layer's uncertainty by pixel",
    "magnitude": "",
    "identification": "",
    "evolution": "",
    "convergence": "",
    "loss": "Training",
    "reliability": "Can the probabilities be taken at their word?",
    "risk-coverage": "What does declining the most uncertain images gain?",
    "declined-images": "",
}
NOTES = {
    "compare-layers": "Like beside like: conditional figures of all posteriors, marginal ones of those that have them.",
    "layer-uncertainty": "Each ridge is the distribution over a layer's weights, scaled to its own peak; the bar spans "
    "5 to 95 % of them, the dot is the median.",
    "weight-heatmap": "Rows are outputs, columns inputs; weights of a large layer are averaged in blocks. Each picture "
    "has its own colour scale.",
    "input-map": "Where the images never vary, the data say nothing and the sd stays at the prior's.",
    "magnitude": "Sizes and sds are relative to the prior's sd; both axes are the same for all layers. Where the line "
    "leaves the grey band, the sd depends on the size beyond chance.",
    "identification": "A weight is unidentified where the KL of its posterior from its prior is next to nothing. A "
    "unit in full colour has only such weights.",
    "evolution": "A dot stands where a quantity had settled; means and sds are relative to the prior's sd.",
    "convergence": "By the worst of mean, sd and KL. Where the learning rate falls everything flattens, so nothing is "
    "read off there.",
    "loss": "Summed over the data, by epoch; the sentence is the fit's own verdict. It compares the means over the "
    "last tenth of the epochs and the tenth before, and the same of the epochs before the learning rate falls.",
    "reliability": "Accuracy against confidence: on the diagonal, the probabilities can be taken at their word.",
    "risk-coverage": "Error rate among the images answered, when the most uncertain are declined first.",
    "declined-images": "The images declined first, with the interval of the predicted class's probability.",
}


def embedded(drawing: Any, name: str, *, caption: str = "", alt: str = "") -> Figure:
    """Return a matplotlib drawing as a picture inside the page, and close it.

    Parameters
    ----------
    drawing : Figure, Axes, or array of Axes
    name : str
        Of which posteriors it is.
    caption, alt : str
        What to see in it; what kind of drawing it is.

    Returns
    -------
    Figure
    """
    import matplotlib.pyplot as plt

    figure = figure_of(drawing)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, facecolor="white", pil_kwargs={"compress_level": COMPRESSION})
    plt.close(figure)
    content = picture.getvalue()
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))  # of the PNG's IHDR
    source = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    size = round(width * CSS_DPI / DPI), round(height * CSS_DPI / DPI)
    return Figure(source, name, *size, caption=caption, alt=alt)


def figure_of(drawing: Any) -> MatplotlibFigure:
    """Return the matplotlib figure of what a plot gave back: a figure, axes, or an array of axes."""
    if isinstance(drawing, MatplotlibFigure):
        return drawing
    first = drawing.flat[0] if hasattr(drawing, "flat") else drawing
    return first.figure


def drawn(kind: str, posterior: Posterior, **options: Any) -> Figure | None:
    """Return one kind of plot of one posterior, or None where its file does not hold what the plot needs.

    Parameters
    ----------
    kind : str
        A key of `wiu_pyro.plots.KINDS`.
    posterior : Posterior
    **options
        Passed to the plot.

    Returns
    -------
    Figure or None
    """
    try:
        source = posterior.asked(kind) if kind in ASKED else posterior.idata
        drawing = plots.KINDS[kind](source, **options)
    except (SchemaError, DataError):
        return None
    what = f", layer {options['layer']}" if options.get("layer") else ""
    alt = ALTS.get(kind, TITLES.get(kind, kind.replace("-", " ").capitalize()))
    return embedded(drawing, f"{posterior.name}{what}", caption=caption(kind, posterior, **options), alt=alt)


def figure_section(posteriors: Sequence[Posterior]) -> Section:
    """Return the plots of the layers' uncertainty, one group per kind; a new kind of plot comes in by itself."""
    groups = []
    for kind in plots.KINDS:
        if kind not in ELSEWHERE:
            groups.append(figure_group(kind, _all_of(kind, posteriors)))
    return Section("figures", "Inside the layers", figure_groups=tuple(group for group in groups if group.figures))


def figure_group(kind: str, figures: Sequence[Figure | None]) -> FigureGroup:
    """Return the figures of one kind under its title: those that could be drawn, equal ones once for all they show."""
    title = TITLES.get(kind, kind.replace("-", " ").capitalize())
    once: dict[str, Figure] = {}
    for figure in figures:
        if figure is not None:
            known = once.get(figure.source)
            once[figure.source] = replace(known, name=f"{known.name}, {figure.name}") if known else figure
    return FigureGroup(title, tuple(once.values()), NOTES.get(kind, ""))


def side_by_side(posteriors: Sequence[Posterior]) -> FigureGroup:
    """Return the picture of all posteriors beside each other; no figure of fewer than two."""
    if len(posteriors) < 2:
        return FigureGroup("", ())
    try:
        drawing = plots.compare_layers({posterior.name: posterior.idata for posterior in posteriors})
    except SchemaError:
        return FigureGroup("", ())
    seen = (
        "Further right in the contraction panels, the data determine the layer more; in the KL panel they moved it "
        "further from its prior."
    )
    if any(posterior.converged == "no" for posterior in posteriors):
        seen += " Hollow marks are fits that had not converged."
    figure = embedded(drawing, "The posteriors side by side", caption=seen, alt=ALTS["compare-layers"])
    return FigureGroup("", (figure,), NOTES["compare-layers"])


def _all_of(kind: str, posteriors: Sequence[Posterior]) -> list[Figure]:
    """Return one plot a posterior; of a plot that shows one layer, one for each of the first few layers as well."""
    if kind not in PER_LAYER:
        found = [drawn(kind, posterior) for posterior in posteriors]
    else:
        layers = dict.fromkeys(layer for posterior in posteriors for layer in posterior.covered[:MOST_LAYERS])
        found = [drawn(kind, posterior, layer=layer) for layer in layers for posterior in posteriors]
    return [figure for figure in found if figure is not None]
