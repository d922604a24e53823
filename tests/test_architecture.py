"""Imports point one way. Read from the source, so that nothing has to be importable for it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wiu_pyro"
ROOMS = (
    "errors",
    "progress",
    "schema",
    "metrics",
    "linalg",
    "curvature",
    "nn",
    "guides",
    "infer",
    "export",
    "interventions",
    "diagnostics",
    "plots",
    "report",
    "cli",
)
# Modules beside the chain: what each may import, as a set of rooms
ABOVE_ALL = ("__init__", "__main__", "testing")
LEFT_OF = {room: set(ROOMS[:place]) for place, room in enumerate(ROOMS)}
for room in ROOMS[ROOMS.index("guides") :]:
    LEFT_OF[room].add("datasets")
LEFT_OF["datasets"] = set(LEFT_OF["nn"])
# What works on a saved file, without the network
SAVED_FILE_ROOMS = ("diagnostics", "plots", "report")
WITHOUT_TORCH = {"errors", "progress", "schema", "metrics", *SAVED_FILE_ROOMS}
TORCH_ROOMS = ("linalg", "curvature", "nn", "guides", "infer", "datasets")


def imported_modules(source: str) -> set[str]:
    """Every module a source imports, wherever the import stands; ``from wiu_pyro import x`` is ``wiu_pyro.x``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.add("." * node.level + (node.module or ""))
            elif node.module == "wiu_pyro":
                found |= {f"wiu_pyro.{alias.name}" for alias in node.names}
            else:
                found.add(node.module or "")
    return found


def violations(room: str, source: str) -> list[str]:
    """What a module of `room` imports and must not."""
    if room in ABOVE_ALL:
        outside = ("models", "analyses")
        return [name for name in imported_modules(source) if name.split(".")[0] in outside]
    found = []
    for name in sorted(imported_modules(source)):
        top, _, rest = name.partition(".")
        if top == "wiu_pyro":
            other = rest.split(".")[0]
            allowed = LEFT_OF[room] | {room}
            if room == "cli":
                allowed |= {""}
            if room in SAVED_FILE_ROOMS:
                allowed &= WITHOUT_TORCH
            bad = other not in allowed
        else:
            bad = (
                top in {"", "models", "analyses"}
                or (room in WITHOUT_TORCH and top in {"torch", "torchvision", "pyro"})
                or (room in {"linalg", "curvature"} and top == "pyro")
                or (room in TORCH_ROOMS and top in {"xarray", "arviz"})
            )
        if bad:
            found.append(name)
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


PACKAGES = sorted(init.parent for init in PACKAGE.glob("*/__init__.py") if init.parent.name != "_models")
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_models" not in path.parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_to_its_left(path):
    assert room_of(path) in {*LEFT_OF, *ABOVE_ALL}, "a new room needs its place in the order of imports"
    assert violations(room_of(path), path.read_text()) == []


@pytest.mark.parametrize("room", PACKAGES, ids=lambda path: path.name)
def test_room_shows_its_public_names_in_all(room):
    assigned = {
        target.id
        for node in ast.parse((room / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    assert "__all__" in assigned


def test_no_module_is_called_utils():
    assert [path for path in MODULES if path.stem in {"utils", "util", "helpers", "misc"}] == []


@pytest.mark.parametrize(
    ("room", "source", "caught"),
    [
        ("linalg", "import pyro", "pyro"),
        ("curvature", "from pyro.nn import PyroModule", "pyro.nn"),
        ("curvature", "from wiu_pyro.guides import AutoMeanField", "wiu_pyro.guides"),
        ("nn", "from wiu_pyro import infer", "wiu_pyro.infer"),
        ("nn", "import wiu_pyro.datasets", "wiu_pyro.datasets"),
        ("datasets", "from wiu_pyro.nn.scripts import load_model_script", "wiu_pyro.nn.scripts"),
        ("guides", "import xarray as xr", "xarray"),
        ("infer", "import wiu_pyro", "wiu_pyro"),
        ("diagnostics", "import torch", "torch"),
        ("diagnostics", "def f():\n    from torch import nn", "torch"),
        ("plots", "from wiu_pyro.export import load", "wiu_pyro.export"),
        ("report", "from wiu_pyro.curvature.ggn import ggn", "wiu_pyro.curvature.ggn"),
        ("metrics", "import torch.nn.functional as F", "torch.nn.functional"),
        ("export", "from . import container", "."),
        ("cli", "import models.digits_mlp", "models.digits_mlp"),
        ("__init__", "from analyses import first_look", "analyses"),
    ],
)
def test_checker_catches_a_forbidden_import(room, source, caught):
    assert violations(room, source) == [caught]


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("guides", "import pyro, torch\nfrom wiu_pyro.nn import inspect_model\nfrom wiu_pyro.errors import GuideError"),
        ("export", "import torch, xarray\nfrom wiu_pyro.infer import Fit"),
        ("plots", "from wiu_pyro.diagnostics import compare"),
        ("cli", "import wiu_pyro as wiu\nfrom wiu_pyro import datasets"),
        ("testing", "import torch, pyro, xarray\nimport wiu_pyro"),
    ],
)
def test_checker_lets_a_rightful_import_pass(room, source):
    assert violations(room, source) == []
