"""What the figures of the Concepts page share."""

import matplotlib.pyplot as plt

EXACT, LAPLACE, VI = "#333333", "#0072B2", "#D55E00"

plt.rcParams.update(
    {
        "figure.dpi": 110,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)
