"""One API page per room of wiu_pyro, from its `__all__`: a new guide or diagnostic gets its page by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
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
    lines = [room, "=" * len(room), "", f".. automodule:: {room}", "   :no-members:", ""]
    lines += [f".. currentmodule:: {'None' if room == PACKAGE else room}", ""]
    for heading, kind in HEADINGS:
        names = [name for name in public if kind(getattr(module, name))]
        if names:
            own = [] if room == PACKAGE else ["   :toctree:"]
            lines += [heading, "-" * len(heading), "", ".. autosummary::", *own, "   :nosignatures:", ""]
            lines += [f"   {home(name) if room == PACKAGE else name}" for name in names] + [""]
    return "\n".join(lines)


def home(name: str) -> str:
    """Where a name that the package itself shows is documented: in the room that shows it too."""
    thing = getattr(importlib.import_module(PACKAGE), name)
    for room in rooms()[1:]:
        module = importlib.import_module(room)
        if name in module.__all__ and getattr(module, name) is thing:
            return f"~{room}.{name}"
    raise RuntimeError(f"{PACKAGE}.{name} is in no room's __all__, so it has no API page.")


def escape_stars(_app, _what, _name, _object, _options, lines) -> None:
    """Let shapes such as ``(num_samples, *shape)`` stand in a docstring without a backslash."""
    for place, line in enumerate(lines):
        if "`" not in line and ">>>" not in line:
            lines[place] = re.sub(r"(?<=[(\s])\*(\w+)(?=[,)])", r"\\*\1", line)


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
    app.connect("autodoc-process-docstring", escape_stars, priority=100)  # before numpydoc
    return {"parallel_read_safe": True}
