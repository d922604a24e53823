"""The order of the tutorials: a first look, the six questions, and whether the answers are true."""

__all__ = ["PAGES", "InOrder"]

PAGES = (
    "first_look",
    "between_layers",
    "within_layer",
    "during_training",
    "weight_size",
    "pruning",
    "last_layer",
    "is_it_true",
)


class InOrder:
    """Key by which sphinx-gallery sorts the scripts of a folder."""

    def __init__(self, src_dir: str) -> None:
        self.src_dir = src_dir

    def __call__(self, filename: str) -> tuple[int, str]:
        """Return the place of a script; one that is not listed comes last."""
        stem = filename.removesuffix(".py")
        return (PAGES.index(stem) if stem in PAGES else len(PAGES), stem)
