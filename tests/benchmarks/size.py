"""Export and diagnostics at the size of VGG-16: time, peak memory and bytes of the posterior of 14.7 million weights.

``python -m tests.benchmarks.size`` measures all of it, each step in a process of its own, and prints a table. The
network has random weights, which cost as much as trained ones.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["BARS", "POSTERIORS", "batches", "diagnostics", "export", "main", "measured", "posterior", "vgg16"]

POSTERIORS = {"mean-field": "AutoMeanField", "laplace-diag": "AutoDiagonalLaplace", "laplace-kfac": "AutoKFACLaplace"}
NUM_IMAGES, NUM_DRAWS = 48, 200
# seconds, bytes of memory, bytes of the file
BARS = {"export": (90, 1.5e9, 250e6), "summary": (5, None, None), "diagnostics": (60, 2e9, None)}
OF_SEVERAL = ("agreement", "compare")
ALL = [
    "layer_uncertainty",
    "between_layers",
    "within_layer",
    "weight_distribution",
    "weight_map",
    "magnitude",
    "identification",
    "convergence",
    "evolution",
    "training_loss",
    "compare",
    "agreement",
]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def vgg16(width: int = 64) -> Any:
    """Return torchvision's VGG-16 with BatchNorm for images of 32 by 32: 14.7 million weights at full width."""
    from torch import nn
    from torchvision.models.vgg import cfgs, make_layers

    plan = [size if size == "M" else size * width // 64 for size in cfgs["D"]]
    net = nn.Sequential()
    net.features = make_layers(plan, batch_norm=True)
    net.flatten, net.classifier = nn.Flatten(), nn.Linear(8 * width, 10)
    return net


def posterior(name: str, *, width: int = 64) -> Any:
    """Return a fit of random weights to random images: one epoch of mean field, a pass of curvature for the others."""
    import torch

    import wiu_pyro as wiu

    torch.manual_seed(0)
    model = wiu.nn.BayesianNetwork(vgg16(width), num_data=50_000)
    options: dict[str, Any] = {"epochs": 2, "track": "epoch"} if name == "mean-field" else {"epochs": 0}
    return wiu.fit(model, getattr(wiu.guides, POSTERIORS[name])(model), batches(), **options)


def batches() -> Any:
    """Return a loader of random images with labels."""
    import torch

    data = torch.rand(NUM_IMAGES, 3, 32, 32), torch.randint(10, (NUM_IMAGES,))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=16)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Fill in the seconds of a block, and the most memory the process held in it beyond what it held before."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    CLEAR.write_text("5")  # the most it held becomes what it holds
    before, start = _memory("VmRSS"), time.perf_counter()
    found: dict[str, float] = {}
    yield found
    found |= {"seconds": time.perf_counter() - start, "own": before, "beyond": _memory("VmHWM") - before}


def _memory(kind: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(kind))
    return 1024 * int(line.split()[1])


def export(name: str, paths: list[Path], *, width: int = 64, num_draws: int = NUM_DRAWS) -> dict[str, dict[str, float]]:
    """Fit one posterior and write it to each path; return what each took."""
    import wiu_pyro as wiu

    start = time.perf_counter()
    fit = posterior(name, width=width)
    making = time.perf_counter() - start
    found = {}
    for path in paths:
        with measured() as took:
            wiu.export_posterior(fit, path, num_samples=num_draws)
        found[path.suffix] = took | {"making": making, "bytes": _size(path)}
    return found


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


def diagnostics(path: Path, names: list[str]) -> dict[str, dict[str, float | str]]:
    """Return what each diagnostic takes on a file that stays on the disk; memory beyond Python and the packages."""
    import wiu_pyro as wiu

    wiu.diagnostics  # noqa: B018 - imported before anything is measured
    found: dict[str, Any] = {}
    base = _memory("VmRSS")
    with measured() as took:
        idata = wiu.load(path, lazy=True)
    found["load"] = took
    for name in names:
        function: Callable[..., Any] = getattr(wiu.diagnostics, name)
        refused = {}
        with measured() as took:
            try:
                function([idata, idata] if name in OF_SEVERAL else idata)
            except wiu.errors.WiuError as error:
                refused = {"refused": str(error)}
        found[name] = took | refused | {"beyond": took["own"] + took["beyond"] - base}
    return found


def summary(path: Path) -> dict[str, float]:
    """Return what ``wiu summary`` takes on a file, the start of Python included."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "wiu_pyro", "summary", str(path)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return {"seconds": time.perf_counter() - start}


def in_own_process(*arguments: str) -> dict[str, Any]:
    """Run one step of this module in a process of its own and return what it measured."""
    command = [sys.executable, "-m", "tests.benchmarks.size", "--step", *arguments]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    return json.loads(answer.splitlines()[-1])


def main() -> None:
    """Measure all posteriors, or one step, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=POSTERIORS, nargs="+", default=list(POSTERIORS), help="the posteriors")
    parser.add_argument("--endings", nargs="+", default=[".nc", ".zarr"], help="what the names of the files end in")
    parser.add_argument("--width", type=int, default=64, help="channels of the first layer (default: 64, VGG-16's)")
    parser.add_argument("--draws", type=int, default=NUM_DRAWS, help=f"of each posterior (default: {NUM_DRAWS})")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.step:
        print(json.dumps(_step(*asked.step)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.only:
            paths = [Path(folder) / f"{name}{ending}" for ending in asked.endings]
            took = in_own_process("export", name, str(asked.width), str(asked.draws), *map(str, paths))
            for path in paths:
                _print(name, path, took[path.suffix], num_draws=asked.draws)


def _step(what: str, *rest: str) -> dict[str, Any]:
    if what == "export":
        name, width, num_draws, *paths = rest
        return export(name, [Path(path) for path in paths], width=int(width), num_draws=int(num_draws))
    return diagnostics(Path(rest[0]), ALL)


def _print(name: str, path: Path, took: dict[str, float], *, num_draws: int) -> None:
    shown = summary(path)
    found = in_own_process("diagnostics", str(path))
    print(f"\n{name}, {path.suffix}: {num_draws} draws, {took['bytes'] / 1e6:.0f} MB, made in {took['making']:.0f} s")
    seconds, most = sum(one["seconds"] for one in found.values()), max(one["beyond"] for one in found.values())
    print(f"  {'':<22} {'seconds':>8} {'memory beyond its own':>22}")
    _print_row("export", took["seconds"], took["beyond"], size=took["bytes"])
    _print_row("summary", shown["seconds"], None)
    _print_row("diagnostics", seconds, most)
    for what, one in found.items():
        note = f"   refused: {one['refused'].split(',')[0]}" if "refused" in one else ""
        print(f"    {what:<20} {one['seconds']:8.1f} {one['beyond'] / 1e6:19,.0f} MB{note}")


def _print_row(what: str, seconds: float, beyond: float | None, *, size: float | None = None) -> None:
    """Print a figure beside what it has to be."""
    values = (seconds, beyond, size)
    reached = all(most is None or value is None or value <= most for value, most in zip(values, BARS[what]))
    memory = "" if beyond is None else f"{beyond / 1e6:19,.0f} MB"
    bars = [f"{BARS[what][0]} s", *(f"{most / 1e6:,.0f} MB" for most in BARS[what][1:] if most is not None)]
    verdict = "reached" if reached else "NOT reached"
    print(f"  {what:<22} {seconds:8.1f} {memory:>22}   at most {', '.join(bars)}: {verdict}")


if __name__ == "__main__":
    main()
