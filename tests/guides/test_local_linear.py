"""The written-out gradient of a sampled Linear layer against autograd's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wiu_pyro.guides.local_linear import local_linear

F64 = torch.float64


def parts(*, bias: str, input_grad: bool) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return (torch.rand(*shape, generator=generator, dtype=F64) + 0.1).requires_grad_()

    x = rand(5, 4).requires_grad_(input_grad)
    found: list[torch.Tensor | None] = [x, rand(3, 4), rand(3, 4), rand(3), rand(3)]
    if bias == "fixed":
        found[4] = None
    if bias == "none":
        found[3] = found[4] = None
    return found


def plain(x, loc, scale, bias_loc, bias_scale):
    noise = torch.randn(len(x), len(loc), dtype=F64)
    variance = F.linear(x.square(), scale.square(), None if bias_scale is None else bias_scale.square())
    return F.linear(x, loc, bias_loc) + variance.sqrt() * noise


@pytest.mark.parametrize("input_grad", [True, False])
@pytest.mark.parametrize("bias", ["sampled", "fixed", "none"])
def test_output_and_gradients_are_those_of_autograd(bias, input_grad):
    given = parts(bias=bias, input_grad=input_grad)
    wanted = [one for one in given if one is not None and one.requires_grad]
    found = []
    for layer in (local_linear, plain):
        torch.manual_seed(1)
        output = layer(*given)
        found.append((output, *torch.autograd.grad(output.sin().sum(), wanted)))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def test_zero_variance_gives_the_means_output_and_finite_gradients():
    x, loc, scale = torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 3, requires_grad=True)
    output = local_linear(x, loc, scale)
    torch.testing.assert_close(output, torch.zeros(2, 2), atol=1e-9, rtol=0)
    output.sum().backward()
    assert scale.grad.isfinite().all()


def test_autocast_runs_the_products_in_lower_precision():
    x, loc, scale = torch.rand(4, 3), torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = local_linear(x, loc, scale)
    output.sum().backward()
    assert loc.grad.isfinite().all()
    assert scale.grad.isfinite().all()
