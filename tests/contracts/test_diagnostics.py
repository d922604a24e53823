"""Every diagnostic in ``__all__`` keeps the contract: any posterior in, a Dataset out that can be saved.

What takes several posteriors has a first parameter named ``idatas``: the report goes by that name too.
"""

from __future__ import annotations

import inspect

import pytest
import xarray as xr

from tests.synthetic import synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import WiuError
from wiu_pyro.export.container import build
from wiu_pyro.report.more import SEVERAL

POSTERIORS = {
    "factorised": {},
    "correlated": {"factorised": False},
    "two chains": {"num_chains": 2},
    "estimated": {"factorised": False, "estimated": True},
    "unconverged": {"converged": "no"},
    "without images or point estimate": {"images": False, "point": False},
    "regression": {"likelihood": "normal"},
    "varying prior": {"prior_varies": True},
}


def ask(name: str, idata):
    question = getattr(diagnostics, name)
    first = next(iter(inspect.signature(question).parameters))
    return question([idata, idata] if first == SEVERAL else idata)


def copy_of(idata) -> dict[str, xr.Dataset]:
    return {name: schema.dataset(idata, name).copy(deep=True) for name in schema.groups(idata)}


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("name", diagnostics.__all__)
def test_diagnostic_answers_with_a_dataset_or_an_error_that_teaches(name, posterior, tmp_path):
    idata = synthetic(**POSTERIORS[posterior]).idata
    before = copy_of(idata)
    try:
        answer = ask(name, idata)
    except WiuError:
        answer = None
    assert all(schema.dataset(idata, group).identical(data) for group, data in before.items())
    if answer is None:
        assert posterior in ("estimated", "without images or point estimate", "regression")
        return
    assert isinstance(answer, xr.Dataset)
    assert answer.data_vars
    assert "chain" not in answer.dims or posterior == "two chains"
    answer.to_netcdf(tmp_path / "answer.nc", engine="h5netcdf")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "answer.nc", engine="h5netcdf"), answer)


@pytest.mark.parametrize("name", diagnostics.__all__)
def test_table_of_one_posterior_says_whether_its_fit_had_converged(name):
    answer = ask(name, synthetic(converged="no").idata)
    said = answer["converged"].values.tolist() if "converged" in answer else [answer.attrs["converged"]]
    assert set(said) == {"no"}


@pytest.mark.parametrize("name", diagnostics.__all__)
def test_diagnostic_refuses_a_file_that_is_no_posterior(name):
    with pytest.raises(WiuError):
        ask(name, build({"prior": xr.Dataset({"scale": 1.0})}))
