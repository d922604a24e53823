"""One colour per posterior on the Concepts page; fonts and lines stand in conf.py (plot_rcparams)."""

EXACT, LAPLACE, VI = "#333333", "#0072B2", "#D55E00"
