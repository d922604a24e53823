"""Kronecker factors where they must be exact, Fisher matrices in the limit, the Hessian against `torch.func`."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from tests.curvature.networks import LinearSequence, build, captured, ggn_of_layer, jacobians, rules_of, weights_of
from wiu_pyro.curvature import FullCurvature, KroneckerFactors, NormalOutput, hessian
from wiu_pyro.errors import CurvatureError

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def columns(kind, **options):
    return lambda likelihood, batch: likelihood.columns(kind, labels=LABELS, **options)


def kronecker(found, rule, layer, **options) -> torch.Tensor:
    factors = KroneckerFactors(rule, **options)
    factors.update(found.inputs[layer], found.grads[layer])
    blocks = [torch.kron(grad, inputs) for grad, inputs in zip(factors.grad_factor, factors.input_factor)]
    return torch.block_diag(*blocks)


@pytest.mark.parametrize("name", ["mlp", "no-bias"])
def test_kfac_of_a_single_datum_is_its_ggn(name):
    net, x = build(name)
    found = captured(net, x[:1], columns("ggn"))
    for layer, rule in rules_of(net).items():
        torch.testing.assert_close(kronecker(found, rule, layer), ggn_of_layer(net, x[:1], layer))


@pytest.mark.parametrize("name", ["stride-padding", "dilated", "grouped"])
def test_kfac_of_a_single_datum_is_its_ggn_where_a_conv_has_one_position(name):
    net, x = build(name)
    rule = rules_of(net)["0"]
    window = [rule.module.dilation[axis] * (rule.module.kernel_size[axis] - 1) + 1 for axis in (0, 1)]
    module = nn.Sequential(net[0], nn.ReLU(), nn.Flatten(), nn.Linear(net[0].out_channels, 3).double()).eval()
    module[0].padding, module[0]._reversed_padding_repeated_twice = (0, 0), [0, 0, 0, 0]
    one = x[:1, :, : window[0], : window[1]]
    found = captured(module, one, columns("ggn"))
    # for several groups the GGN has blocks between them, which Kronecker factors by group leave out
    expected = ggn_of_layer(module, one, "0")
    size = rule.numel // rule.groups
    kept = torch.block_diag(*[torch.ones(size, size, dtype=torch.float64)] * rule.groups)
    torch.testing.assert_close(kronecker(found, rules_of(module)["0"], "0"), expected * kept)


def test_kfac_equals_ggn_for_a_linear_net_with_squared_loss():
    """Bernacchia et al. (2018): for each layer of a deep linear network KFAC is exact under squared loss."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)).double()
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    noise = torch.tensor(0.5, dtype=torch.float64)
    found = captured(net, x, columns("ggn"), likelihood=lambda output: NormalOutput(output, noise))
    for layer, rule in rules_of(net).items():
        jacobian = jacobians(net, x, layer)
        expected = torch.einsum("nci,ncj->ij", jacobian, jacobian) / 0.25
        torch.testing.assert_close(kronecker(found, rule, layer), expected)


@pytest.mark.parametrize(
    ("weight_sharing", "make"),
    [
        # Eschenhagen et al. (2023), propositions 1 and 2: outputs at each position, and outputs summed over positions
        ("expand", lambda: LinearSequence(nn.Identity(), summed=False)),
        ("reduce", lambda: LinearSequence(nn.Identity())),
        ("reduce", lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 2))),
    ],
)
def test_each_form_of_weight_sharing_is_exact_for_the_linear_networks_it_is_made_for(weight_sharing, make):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = make().double()
    shape = (2, 3, 3) if isinstance(net, nn.Sequential) else (5, 3)
    x = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    noise = torch.tensor(0.5, dtype=torch.float64)
    found = captured(net, x, columns("ggn"), likelihood=lambda output: NormalOutput(output, noise))
    for layer, rule in rules_of(net).items():
        jacobian = jacobians(net, x, layer)
        expected = torch.einsum("nci,ncj->ij", jacobian, jacobian) / 0.25
        torch.testing.assert_close(kronecker(found, rule, layer, weight_sharing=weight_sharing), expected)


@pytest.mark.parametrize("name", ["mlp", "no-bias"])
def test_both_forms_of_weight_sharing_agree_where_weights_are_used_once(name):
    net, x = build(name)
    found = captured(net, x, columns("ggn"))
    for layer, rule in rules_of(net).items():
        both = [kronecker(found, rule, layer, weight_sharing=form) for form in ("expand", "reduce")]
        torch.testing.assert_close(both[0], both[1])


@pytest.mark.parametrize("weight_sharing", ["expand", "reduce"])
@pytest.mark.parametrize("name", ["grouped", "conv1d", "conv3d", "transposed-all", "circular", "linear-sequence"])
def test_factors_are_the_sums_over_positions_that_define_them(name, weight_sharing):
    net, x = build(name)
    found = captured(net, x, columns("ggn"))
    layer, rule = next(iter(rules_of(net).items()))
    inputs, outputs = rule.inputs(found.inputs[layer]), rule.output_grads(found.grads[layer])
    # the factors rest on inputs and output gradients whose products make up the exact Jacobian
    joint = sum(inputs[:, :, t, None, :] * outputs[:, :, :, t, :, None] for t in range(inputs.shape[2]))
    exact = jacobians(net, x, layer)
    cotangent = found.likelihood.sqrt_hessian()
    torch.testing.assert_close(
        joint.flatten(2), torch.einsum("knc,nci->kni", cotangent, exact), msg="the layer's own Jacobian"
    )
    grad, input_factor = 0.0, 0.0
    uses = len(x) * (inputs.shape[2] if weight_sharing == "expand" else 1)
    for datum in range(len(x)):
        for group in range(rule.groups):
            each = inputs[datum, group]  # (positions, in)
            g = outputs[:, datum, group]  # (columns, positions, out)
            if weight_sharing == "reduce":
                each, g = each.mean(0)[None], g.sum(1)[:, None]
            place = torch.zeros(rule.groups, 1, 1, dtype=torch.float64)
            place[group] = 1.0
            input_factor = input_factor + place * sum(torch.outer(a, a) for a in each) / uses
            grad = grad + place * sum(torch.outer(one, one) for one in g.flatten(0, 1))
    factors = KroneckerFactors(rule, weight_sharing=weight_sharing)
    factors.update(found.inputs[layer], found.grads[layer])
    torch.testing.assert_close(factors.grad_factor, grad)
    torch.testing.assert_close(factors.input_factor, input_factor)


def test_kfac_of_two_batches_is_kfac_of_all():
    net, x = build("stride-padding")
    for layer, rule in rules_of(net).items():
        at_once, in_parts = KroneckerFactors(rule), KroneckerFactors(rule)
        for target, rows in ((at_once, [slice(0, 6)]), (in_parts, [slice(0, 2), slice(2, 6)])):
            for part in rows:
                found = captured(net, x[part], lambda likelihood, batch: likelihood.sqrt_hessian())
                target.update(found.inputs[layer], found.grads[layer])
        torch.testing.assert_close(in_parts.grad_factor, at_once.grad_factor)
        torch.testing.assert_close(in_parts.input_factor, at_once.input_factor)


def test_inplace_activation_after_a_conv_leaves_the_factors_alone():
    """Torchvision's VGG and ResNet overwrite a layer's output by their in-place ReLUs."""
    out_of_place, x = build("conv")
    inplace, _ = build("inplace")
    found = [captured(net, x.clone(), columns("ggn")) for net in (out_of_place, inplace)]
    for layer in rules_of(out_of_place):
        torch.testing.assert_close(found[0].inputs[layer], found[1].inputs[layer])
        torch.testing.assert_close(found[0].grads[layer], found[1].grads[layer])


def full(net, x, kind, **options) -> torch.Tensor:
    curvature = FullCurvature(rules_of(net))
    curvature.update(captured(net, x, columns(kind, **options)))
    return curvature.matrix


def test_empirical_fisher_is_the_sum_of_squared_gradients():
    net, x = build("mlp")
    gradients = []
    for one, label in zip(x, LABELS):
        loss = nn.functional.cross_entropy(net(one[None]), label[None])
        grads = dict(zip(weights_of(net), torch.autograd.grad(loss, list(net.parameters()))))
        parts = [
            rule.join({key: grads[f"{layer}.{key}"] for key in rule.shapes}) for layer, rule in rules_of(net).items()
        ]
        gradients.append(torch.cat(parts))
    stacked = torch.stack(gradients)
    torch.testing.assert_close(full(net, x, "fisher_empirical"), stacked.mT @ stacked)


def test_sampled_fisher_converges_to_the_ggn():
    net, x = build("mlp")
    repeats = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        repeats.append(full(net, x, "fisher_mc", num_samples=20, generator=generator))
    stacked = torch.stack(repeats)
    error = stacked.std(0) / len(repeats) ** 0.5
    off = (stacked.mean(0) - full(net, x, "ggn")).abs()
    assert (off <= 5 * error + 1e-9).all()


def test_sampled_fisher_is_the_same_with_the_same_generator():
    net, x = build("mlp")
    found = [
        full(net, x, "fisher_mc", num_samples=2, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("chunk_size", [7, 64])
def test_hessian_is_that_of_torch_func(chunk_size):
    net, x = build("mlp")
    leaves = {name: value.requires_grad_() for name, value in weights_of(net).items()}

    def loss(batch):
        return nn.functional.cross_entropy(functional_call(net, leaves, (batch[0],)), batch[1], reduction="sum")

    batches = [(x[:4], LABELS[:4]), (x[4:], LABELS[4:])]
    found = hessian(loss, batches, leaves, chunk_size=chunk_size)
    names, shapes = list(leaves), [value.shape for value in leaves.values()]

    def of_flat(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        values = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes)}
        return nn.functional.cross_entropy(functional_call(net, values, (x,)), LABELS, reduction="sum")

    flat = torch.cat([value.detach().reshape(-1) for value in leaves.values()])
    torch.testing.assert_close(found, torch.func.hessian(of_flat)(flat))


def test_hessian_names_a_weight_the_loss_does_not_depend_on():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    with pytest.raises(CurvatureError, match=r"'idle.weight' does not: no data came through its layer"):
        hessian(lambda batch: used.square().sum(), [(torch.ones(1),)], {"fc.weight": used, "idle.weight": unused})
