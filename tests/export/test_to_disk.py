"""What is written layer by layer is what is made in memory and saved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import wiu_pyro as wiu
from tests.export.conftest import make_data, make_model
from wiu_pyro.errors import OutputError, SchemaError
from wiu_pyro.export import convert, scratch, stores
from wiu_pyro.schema import dataset, groups

GUIDES = ["AutoMeanField", "AutoKFACLaplace"]


@pytest.fixture(params=["posterior.nc", "posterior.zarr"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param.endswith(".zarr"):
        pytest.importorskip("zarr", reason="an extra: wiu_pyro[zarr]")
    return tmp_path / request.param


def assert_same(one: Any, other: Any) -> None:
    assert sorted(groups(one)) == sorted(groups(other))
    for name in groups(one):
        first, second = dataset(one, name), dataset(other, name)
        for data in (first, second):
            data.attrs.pop("created_at", None)
        xr.testing.assert_identical(first, second)


@pytest.mark.parametrize("name", GUIDES)
def test_the_file_is_that_of_an_export_that_is_saved(name: str, fits: dict[str, Any], path: Path) -> None:
    options = {"num_samples": 5, "seed": 2, "class_names": ["a", "b", "c"]}
    assert wiu.export_posterior(fits[name], path, make_data(), **options) == path
    saved = wiu.load(wiu.save(wiu.to_inference_data(fits[name], make_data(), **options), path.with_stem("saved")))
    assert_same(wiu.load(path), saved)


def test_draws_too_many_for_memory_lie_on_the_disk_while_they_are_made(
    fits: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, on_disk = [], scratch._on_disk
    monkeypatch.setattr(scratch, "IN_MEMORY", 100)
    monkeypatch.setattr(scratch, "_on_disk", lambda *given: made.append(on_disk(*given)) or made[-1])
    options = {"num_samples": 5, "max_weights_per_layer": None}
    wiu.export_posterior(fits["AutoKFACLaplace"], path, **options)
    assert [type(array) for array in made] == [np.memmap] * 4
    assert_same(wiu.load(path), wiu.to_inference_data(fits["AutoKFACLaplace"], **options))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_an_ensemble_is_written_too(path: Path) -> None:
    model = make_model()
    fit = wiu.fit(model, wiu.guides.AutoEnsemble(model), make_data(), epochs=2, progress=False)
    wiu.export_posterior(fit, path, num_samples=2)
    assert_same(wiu.load(path), wiu.to_inference_data(fit, num_samples=2))


def test_one_layer_is_made_after_the_other_is_written(
    fits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    write, make = stores._NetCDF.write, convert.WeightGroups.by_layer

    def noted(self: Any) -> Any:
        for name, data in make(self):
            order.append(f"made {name}")
            yield name, data

    monkeypatch.setattr(convert.WeightGroups, "by_layer", noted)
    monkeypatch.setattr(
        stores._NetCDF, "write", lambda self, name, data: order.append(f"wrote {name}") or write(self, name, data)
    )
    wiu.export_posterior(fits["AutoKFACLaplace"], tmp_path / "posterior.nc", num_samples=2)
    layers = [entry for entry in order if "layer_" in entry or "moments_" in entry]
    names = ["layer_fc1", "moments_fc1", "layer_out", "moments_out"]
    assert layers == [f"{what} {name}" for name in names for what in ("made", "wrote")]


def test_a_disk_without_room_for_the_draws_is_refused_before_they_are_made(
    fits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "IN_MEMORY", 100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=500))
    with pytest.raises(OutputError, match=r"Room for .* GB is needed for the draws.*Keep fewer: max_weights_per_layer"):
        wiu.export_posterior(fits["AutoKFACLaplace"], tmp_path / "posterior.nc", num_samples=9)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_keeps_the_last_good_file(
    fits: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiu.export_posterior(fits["AutoMeanField"], path, num_samples=3)
    before = wiu.load(path)

    def full(self: Any, name: str, data: xr.Dataset) -> None:
        raise OSError(28, "No space left on device")

    for store in (stores._NetCDF, stores._Zarr):
        monkeypatch.setattr(store, "write", full)
    with pytest.raises(OutputError, match="No space left on device.*Nothing was changed"):
        wiu.export_posterior(fits["AutoKFACLaplace"], path, num_samples=3)
    assert_same(wiu.load(path), before)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_what_breaks_the_contract_is_not_moved_into_place(tmp_path: Path) -> None:
    model = make_model()
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), make_data(), epochs=1, progress=False)
    with torch.no_grad():
        fit.guide.loc[0] = torch.nan
    with pytest.raises(SchemaError, match="must not be NaN, but is for 2 draws"):
        wiu.export_posterior(fit, tmp_path / "posterior.nc", num_samples=2)
    assert not list(tmp_path.iterdir())
