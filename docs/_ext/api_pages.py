"""One API page per room of wiu_pyro, from its `__all__`: a new guide or diagnostic gets its page by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import shutil
from pathlib import Path

PACKAGE = "wiu_pyro"
NOT_API = {"__main__", "_models", "cli"}
HEADINGS = (("Classes", inspect.isclass), ("Functions", inspect.isroutine))


def rooms() -> list[str]:
    """The package itself, then every room in it that has an `__all__`."""
    package = importlib.import_module(PACKAGE)
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in NOT_API)
    return [PACKAGE, *(f"{PACKAGE}.{name}" for name in names)]


def page(room: str) -> str:
    """The page of a room: what its docstring says, then a table of its classes and one of its functions."""
    module = importlib.import_module(room)
    public = getattr(module, "__all__", None)
    if public is None:
        raise RuntimeError(f"{room} needs an __all__, so that its API page can be made.")
    lines = [
        room,
        "=" * len(room),
        "",
        f".. automodule:: {room}",
        "   :no-members:",
        "",
        f".. currentmodule:: {room}",
        "",
    ]
    for heading, kind in HEADINGS:
        names = [name for name in public if kind(getattr(module, name))]
        if names:
            lines += [heading, "-" * len(heading), "", ".. autosummary::", "   :toctree:", "   :nosignatures:", ""]
            lines += [f"   {name}" for name in names] + [""]
    return "\n".join(lines)


def write_pages(app, _config) -> None:
    """Write all pages and their index anew, before Sphinx looks for sources."""
    folder = Path(app.srcdir) / "api" / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = rooms()
    for name in names:
        (folder / f"{name}.rst").write_text(page(name))
    entries = "\n".join(f"   generated/{name}" for name in names)
    (folder / "rooms.txt").write_text(f".. toctree::\n   :maxdepth: 1\n\n{entries}\n")


def setup(app) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
