"""A posterior survives the disk, and nothing half-written stays behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr

from tests.synthetic import CONV_LAYERS, LayerSpec, synthetic
from wiu_pyro.errors import OutputError, SchemaError
from wiu_pyro.export import load, save
from wiu_pyro.export.container import build
from wiu_pyro.schema import dataset, groups

OPTIONS = {
    "small": {},
    "subsets, dotted names": {"layers": CONV_LAYERS, "max_weights_per_layer": 20, "factorised": False},
    "two chains": {"num_chains": 2, "prior_varies": True},
    "regression": {"likelihood": "normal", "estimated": True},
}


def make(**options: Any) -> Any:
    return synthetic(**({"num_draws": 6, "num_obs": 9} | options)).idata


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_disk_keeps_groups_dims_dtypes_coordinates_and_attributes(options: dict[str, Any], tmp_path: Path) -> None:
    before = make(**options)
    after = load(save(before, tmp_path / "posterior.nc"))
    assert type(after) is type(before)
    assert groups(after) == groups(before)
    for name in groups(before):
        old, new = dataset(before, name), dataset(after, name)
        xr.testing.assert_identical(old, new)
        for variable in old.variables:
            assert new[variable].dtype.kind == old[variable].dtype.kind
            if old[variable].dtype.kind != "U":
                assert new[variable].dtype == old[variable].dtype


def test_attributes_come_back_as_python_values(tmp_path: Path) -> None:
    idata = make(layers=(LayerSpec("fc", (30, 4), 0.5),), max_weights_per_layer=10)
    content = {name: dataset(idata, name) for name in groups(idata)}
    note = {"exact": True, "sizes": np.array([1, 2]), "rate": np.float32(0.5), "none": None, "class_names": ["one"]}
    content["posterior"].attrs |= note
    attrs = dataset(load(save(build(content), tmp_path / "posterior.nc")), "posterior").attrs
    assert {name: attrs[name] for name in note} == {
        "exact": 1,
        "sizes": [1, 2],
        "rate": 0.5,
        "none": "",
        "class_names": ["one"],
    }
    assert type(attrs["seed"]) is int


def test_arviz_reads_the_file_itself(tmp_path: Path) -> None:
    before = make(layers=CONV_LAYERS)
    after = az.from_netcdf(str(save(before, tmp_path / "posterior.nc")))
    assert sorted(groups(after)) == sorted(groups(before))
    np.testing.assert_array_equal(
        dataset(after, "layer_features.0").weight.values, dataset(before, "layer_features.0").weight.values
    )


def test_draws_are_stored_uncompressed(tmp_path: Path) -> None:
    path = save(make(), tmp_path / "posterior.nc")
    with xr.open_dataset(path, group="layer_fc1", engine="h5netcdf") as data:
        assert not data.weight.encoding["zlib"]


def test_the_same_posterior_gives_the_same_file(tmp_path: Path) -> None:
    first, second = (save(make(), tmp_path / name) for name in ("a.nc", "b.nc"))
    assert first.read_bytes() == second.read_bytes()


def test_reading_a_file_needs_no_torch() -> None:
    code = "import sys; from wiu_pyro import load, save, concat; assert not {'torch', 'arviz'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_closes_the_file(tmp_path: Path) -> None:
    path = save(make(), tmp_path / "posterior.nc")
    idata = load(path)
    path.unlink()
    assert np.isfinite(dataset(idata, "layer_fc1").weight.values).all()
    assert groups(load(save(idata, path))) == groups(idata)


def test_saving_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "posterior.nc"
    path.write_text("old")
    idata = make()
    save(idata, path)
    assert groups(load(path)) == groups(idata)
    assert [entry.name for entry in tmp_path.iterdir()] == ["posterior.nc"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "posterior.nc"
    path.write_text("old")
    written = xr.Dataset.to_netcdf

    def fill_the_disk(self: xr.Dataset, *args: Any, **kwargs: Any) -> Any:
        written(self, *args, **kwargs)
        if kwargs["group"] == "layers":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fill_the_disk)
    with pytest.raises(OutputError, match="No space left on device.*Nothing was changed"):
        save(make(), path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["posterior.nc"]


def test_saving_needs_a_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="missing' is none. Create it first"):
        save(make(), tmp_path / "missing" / "posterior.nc")


def test_saving_needs_a_file_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder. Add a name"):
        save(make(), tmp_path)


def test_saving_refuses_what_breaks_the_contract(tmp_path: Path) -> None:
    idata = make()
    content = {name: dataset(idata, name) for name in groups(idata) if name != "moments_out"}
    with pytest.raises(SchemaError, match="moments_out"):
        save(build(content), tmp_path / "posterior.nc")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="missing.nc' is not there. Check the path"):
        load(tmp_path / "missing.nc")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(keep: float, tmp_path: Path) -> None:
    path = save(make(), tmp_path / "posterior.nc")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(
        SchemaError, match=r"posterior.nc' \([\d,]+ bytes\) cannot be read.*truncated or of another kind"
    ):
        load(path)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.nc"
    path.write_text("these are notes, not a posterior\n" * 100)
    with pytest.raises(SchemaError, match="cannot be read as one.*write it again with wiu_pyro.save"):
        load(path)


def test_a_foreign_netcdf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weather.nc"
    xr.Dataset({"rain": ("day", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(SchemaError, match="weather.nc' does not hold a posterior of wiu_pyro.*group 'posterior'"):
        load(path)


def test_a_posterior_of_another_tool_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "eight_schools.nc"
    draws = xr.Dataset({"mu": (("chain", "draw"), np.ones((4, 10)))})
    draws.to_netcdf(path, group="posterior", engine="h5netcdf")
    xr.Dataset({"x": ("layer", [1.0])}).to_netcdf(path, group="layers", mode="a", engine="h5netcdf")
    with pytest.raises(SchemaError, match="was not written by wiu_pyro.save"):
        load(path)


def test_file_without_room_is_refused_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 crashes the whole process where a disk fills up under it."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(xr.Dataset, "to_netcdf", lambda *_, **__: pytest.fail("began to write"))
    with pytest.raises(OutputError, match=r"its disk has 0.0 MB left. Free some space.*Nothing was changed"):
        save(make(), tmp_path / "posterior.nc")
    assert list(tmp_path.iterdir()) == []
