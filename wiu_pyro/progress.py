"""A progress bar on stderr, from rich."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["ProgressBar"]


class ProgressBar:
    """Steps of a long task with the figures that matter; silent when `shown` is False.

    Parameters
    ----------
    total : int or None
        Number of steps; None where it is not known.
    label : str
    shown : bool
    """

    def __init__(self, total: int | None, label: str, shown: bool) -> None:
        self._figures: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._progress.add_task(label, total=total, figures="")

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def note(self, **figures: float) -> None:
        """Show figures beside the bar from now on."""
        self._figures.update(figures)

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Move on by some steps."""
        self._figures.update(figures)
        text = "  ".join(f"{name} {value:.4g}" for name, value in self._figures.items())
        self._progress.update(self._task, advance=steps, figures=text)
