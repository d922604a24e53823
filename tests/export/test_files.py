"""A posterior survives the disk, and nothing half-written stays behind."""

from __future__ import annotations

import os
import signal
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
from wiu_pyro.export import load, save, stores
from wiu_pyro.export.container import build
from wiu_pyro.export.in_place import remove
from wiu_pyro.schema import dataset, groups

OPTIONS = {
    "small": {},
    "subsets, dotted names": {"layers": CONV_LAYERS, "max_weights_per_layer": 20, "factorised": False},
    "two chains": {"num_chains": 2, "prior_varies": True},
    "regression": {"likelihood": "normal", "estimated": True},
}


def make(**options: Any) -> Any:
    return synthetic(**({"num_draws": 6, "num_obs": 9} | options)).idata


def files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(params=["posterior.nc", "posterior.zarr"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param.endswith(".zarr"):
        pytest.importorskip("zarr", reason="an extra: wiu_pyro[zarr]")
    return tmp_path / request.param


@pytest.mark.parametrize("lazy", [False, True], ids=["read whole", "read when asked for"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_disk_keeps_groups_dims_dtypes_coordinates_and_attributes(
    options: dict[str, Any], lazy: bool, path: Path
) -> None:
    before = make(**options)
    after = load(save(before, path), lazy=lazy)
    assert type(after) is type(before)
    assert sorted(groups(after)) == sorted(groups(before))
    for name in groups(before):
        old, new = dataset(before, name), dataset(after, name)
        xr.testing.assert_identical(old, new)
        for variable in old.variables:
            assert new[variable].dtype.kind == old[variable].dtype.kind
            if old[variable].dtype.kind != "U":
                assert new[variable].dtype == old[variable].dtype


def test_attributes_come_back_as_python_values(path: Path) -> None:
    idata = make(layers=(LayerSpec("fc", (30, 4), 0.5),), max_weights_per_layer=10)
    content = {name: dataset(idata, name) for name in groups(idata)}
    note = {"exact": True, "sizes": np.array([1, 2]), "rate": np.float32(0.5), "none": None, "class_names": ["one"]}
    content["posterior"].attrs |= note
    attrs = dataset(load(save(build(content), path)), "posterior").attrs
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


def test_arviz_reads_the_zarr_folder_through_xarray(tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="an extra: wiu_pyro[zarr]")
    before = make(layers=CONV_LAYERS)
    tree = xr.open_datatree(save(before, tmp_path / "posterior.zarr"), engine="zarr")
    after = az.InferenceData.from_datatree(tree) if "InferenceData" in vars(az) else tree
    assert sorted(groups(after)) == sorted(groups(before))
    assert az.summary(after, kind="stats").index.tolist() == az.summary(before, kind="stats").index.tolist()


def test_large_arrays_are_cut_into_chunks_and_small_ones_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr = pytest.importorskip("zarr", reason="an extra: wiu_pyro[zarr]")
    monkeypatch.setattr("wiu_pyro.export.stores.CHUNK_BYTES", 256)
    path = save(make(layers=(LayerSpec("fc", (30, 4), 0.5),)), tmp_path / "posterior.zarr")
    chunks = {name: array.chunks for name, array in zarr.open_group(path, mode="r")["layer_fc"].arrays()}
    assert chunks["weight"] == (1, 6, 2, 4)  # 192 bytes: all draws of some outputs
    assert chunks["bias"] == (1, 6, 10)
    assert chunks["draw"] == (6,)


def test_what_is_read_when_asked_for_is_not_kept(path: Path) -> None:
    data = dataset(load(save(make(), path), lazy=True), "moments_fc1")
    assert np.isfinite(data["mean"].values).all()
    assert not data["mean"].variable._in_memory


def test_values_read_when_asked_for_are_those_at_opening_even_where_the_file_is_replaced(tmp_path: Path) -> None:
    path = save(make(), tmp_path / "posterior.nc")
    lazy, expected = load(path, lazy=True), dataset(load(path), "moments_fc1")["mean"].values
    save(make(layers=(LayerSpec("fc1", (7, 4), 0.5),)), path)
    np.testing.assert_array_equal(dataset(lazy, "moments_fc1")["mean"].values, expected)


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


def test_loading_closes_the_file(path: Path) -> None:
    save(make(), path)
    idata = load(path)
    remove(path)
    assert np.isfinite(dataset(idata, "layer_fc1").weight.values).all()
    assert groups(load(save(idata, path))) == groups(idata)


def test_saving_replaces_what_is_there_and_leaves_nothing_beside_it(path: Path) -> None:
    save(make(layers=CONV_LAYERS), path)
    idata = make()
    save(idata, path)
    assert sorted(groups(load(path))) == sorted(groups(idata))
    assert files(path.parent) == [path.name]


def test_a_write_that_fails_keeps_what_was_there_and_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make()
    save(before, path)
    for store in (stores._NetCDF, stores._Zarr):
        monkeypatch.setattr(store, "write", full_at("layers", store.write))
    with pytest.raises(OutputError, match="No space left on device.*Nothing was changed"):
        save(make(layers=CONV_LAYERS), path)
    monkeypatch.undo()
    assert sorted(groups(load(path))) == sorted(groups(before))
    assert files(path.parent) == [path.name]


def full_at(group: str, write: Any) -> Any:
    """A disk that fills up when one group is written."""

    def written(self: Any, name: str, data: xr.Dataset) -> None:
        write(self, name, data)
        if name == group:
            raise OSError(28, "No space left on device")

    return written


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_what_was_there_and_the_next_clears_up(path: Path) -> None:
    before = make()
    save(before, path)
    code = f"""
import os, signal
from pathlib import Path
from wiu_pyro.export import load, stores
from wiu_pyro.schema import dataset, groups
idata = load({str(path)!r})
with stores.writing(Path({str(path)!r})) as store:
    store.write("layers", dataset(idata, "layers"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(files(path.parent)) == 2
    assert sorted(groups(load(path))) == sorted(groups(before))
    save(before, path)
    assert files(path.parent) == [path.name]


def test_what_another_process_is_writing_is_left_alone(path: Path) -> None:
    under_way = path.with_name(f".{path.name}.{os.getppid()}.tmp")
    under_way.write_text("half")
    save(make(), path)
    assert under_way.read_text() == "half"


def test_folders_are_exchanged_where_the_system_has_no_single_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zarr", reason="an extra: wiu_pyro[zarr]")
    path = save(make(), tmp_path / "posterior.zarr")
    monkeypatch.setattr("wiu_pyro.export.in_place._exchanged", lambda *_: False)
    idata = make(layers=CONV_LAYERS)
    save(idata, path)
    assert sorted(groups(load(path))) == sorted(groups(idata))
    assert files(tmp_path) == ["posterior.zarr"]


def test_zarr_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(OutputError, match=r"package zarr is needed.*not installed. Install it.*ends in .nc"):
        save(make(), tmp_path / "posterior.zarr")
    (tmp_path / "other.zarr").mkdir()
    with pytest.raises(SchemaError, match=r"package zarr is needed to read 'other.zarr'.*not installed"):
        load(tmp_path / "other.zarr")


def test_a_zarr_name_on_a_file_or_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.zarr").write_text("old")
    with pytest.raises(OutputError, match="is a file. Remove it, or use another name"):
        save(make(), tmp_path / "file.zarr")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="is a folder. Add a name"):
        save(make(), tmp_path / "folder.zarr")


def test_an_empty_zarr_folder_is_no_posterior(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="an extra: wiu_pyro[zarr]")
    zarr.open_group(tmp_path / "empty.zarr", mode="w", zarr_format=2)
    with pytest.raises(SchemaError, match="empty.zarr' does not hold a posterior of wiu_pyro.*group 'posterior'"):
        load(tmp_path / "empty.zarr")


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
    monkeypatch.setattr(stores._NetCDF, "write", lambda *_, **__: pytest.fail("began to write"))
    with pytest.raises(OutputError, match=r"its disk has 0.0 MB left. Free some space.*Nothing was changed"):
        save(make(), tmp_path / "posterior.nc")
    assert list(tmp_path.iterdir()) == []
