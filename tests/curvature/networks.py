"""Networks with every kind of layer, and plain per-sample references from `torch.func`, all in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev

from wiu_pyro.curvature import CategoricalOutput, CurvaturePass, OutputLikelihood, rule_for
from wiu_pyro.curvature.layer_record import CapturedBatch

NUM_DATA, CLASSES = 6, 3


class Sequence(nn.Module):
    """Linear layers over the positions of a sequence, (batch, positions, in)."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.norm, self.out = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.norm(self.each(x))).sum(1))


class LinearSequence(nn.Module):
    """Linear layers over the positions of a sequence, with an activation between or without."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor] = torch.tanh, *, summed: bool = True) -> None:
        super().__init__()
        self.activation, self.summed = activation, summed
        self.each, self.more, self.out = nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.activation(self.more(self.activation(self.each(x))))
        return self.out(found.sum(1)) if self.summed else self.out(found).flatten(1)


class ByName(nn.Module):
    """Calls its layer with a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(input=x)


class Words(nn.Module):
    """Embeds the words of a sentence, given as numbers from 0 to 4, some of them twice."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.emb, self.out = nn.Embedding(5, 3, **options), nn.Linear(3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.emb(words(x))).sum(1))


def words(x: torch.Tensor) -> torch.Tensor:
    """Return indices from 0 to 4 in place of real numbers."""
    return (3 * x).round().long().remainder(5)


def conv(*layers: nn.Module, features: int, inplace: bool = False) -> nn.Module:
    return nn.Sequential(*layers, nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(features, CLASSES))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, CLASSES), (4,)),
    "linear-by-name": (ByName, (4,)),
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)), (4,)),
    "no-bias": (lambda: nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, CLASSES)), (4,)),
    "sequence": (Sequence, (5, 3)),
    "linear-sequence": (LinearSequence, (5, 3)),
    "conv": (lambda: conv(nn.Conv2d(2, 3, 3), features=27), (2, 5, 5)),
    "stride-padding": (lambda: conv(nn.Conv2d(2, 3, 3, stride=2, padding=1), features=27), (2, 5, 5)),
    "uneven": (lambda: conv(nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(0, 1)), features=27), (2, 5, 4)),
    "dilated": (lambda: conv(nn.Conv2d(2, 3, 2, dilation=2), features=27), (2, 5, 5)),
    "grouped": (lambda: conv(nn.Conv2d(4, 6, 3, groups=2), features=54), (4, 5, 5)),
    "depthwise": (lambda: conv(nn.Conv2d(2, 4, 3, groups=2, dilation=2), features=4), (2, 5, 5)),
    "same": (lambda: conv(nn.Conv2d(2, 3, (2, 3), padding="same"), features=48), (2, 4, 4)),
    "same-odd": (lambda: conv(nn.Conv2d(2, 3, 3, padding="same"), features=48), (2, 4, 4)),
    "circular": (
        lambda: conv(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), features=48),
        (2, 4, 4),
    ),
    "reflect": (lambda: conv(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), features=48), (2, 4, 4)),
    "replicate": (lambda: conv(nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"), features=48), (2, 4, 4)),
    "conv1d": (lambda: conv(nn.Conv1d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2), features=12), (2, 7)),
    "conv1d-same": (lambda: conv(nn.Conv1d(2, 3, 2, padding="same"), features=15), (2, 5)),
    "conv1d-circular": (lambda: conv(nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), features=15), (2, 5)),
    "conv3d": (
        lambda: conv(nn.Conv3d(2, 4, (2, 1, 3), stride=(1, 2, 1), padding=(1, 0, 1), groups=2), features=48),
        (2, 2, 3, 2),
    ),
    "conv3d-dilated": (lambda: conv(nn.Conv3d(1, 2, 2, dilation=(1, 2, 1)), features=4), (1, 2, 4, 2)),
    "transposed": (lambda: conv(nn.ConvTranspose2d(2, 3, 2), features=48), (2, 3, 3)),
    "transposed-all": (
        lambda: conv(
            nn.ConvTranspose2d(
                4, 6, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(1, 2), groups=2
            ),
            features=6 * 6 * 8,
        ),
        (4, 3, 2),
    ),
    "transposed-cropped": (
        lambda: conv(nn.ConvTranspose2d(2, 3, 2, stride=2, padding=2, bias=False), features=12),
        (2, 3, 3),
    ),
    "transposed-1d": (lambda: conv(nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, groups=2), features=20), (2, 3)),
    "transposed-3d": (lambda: conv(nn.ConvTranspose3d(1, 2, 2, output_padding=0), features=24), (1, 1, 2, 1)),
    "embedding": (Words, (7,)),
    "embedding-padding": (lambda: Words(padding_idx=2), (7,)),
    "rms-norm": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.RMSNorm(5), nn.Tanh(), nn.Linear(5, CLASSES)),
        (4,),
    ),
    "instance-norm": (lambda: conv(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True), features=27), (2, 5, 5)),
    "instance-norm-tracked": (
        lambda: conv(nn.Conv1d(2, 3, 3), nn.InstanceNorm1d(3, affine=True, track_running_stats=True), features=9),
        (2, 5),
    ),
    "batch-norm": (lambda: conv(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), features=27), (2, 5, 5)),
    "batch-norm-1d": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES)),
        (4,),
    ),
    "group-norm": (lambda: conv(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), features=36), (2, 5, 5)),
    "layer-norm-2d": (lambda: conv(nn.Conv2d(2, 3, 3), nn.LayerNorm([3, 3]), features=27), (2, 5, 5)),
    "inplace": (lambda: conv(nn.Conv2d(2, 3, 3), features=27, inplace=True), (2, 5, 5)),
}


class OwnParameters(nn.Module):
    """Parameters of no layer: a token in front of a sequence, a position's vector in a module, a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 3))
        self.place = nn.Module()
        self.place.embedding = nn.Parameter(torch.zeros(5, 3))
        self.act, self.out = nn.PReLU(), nn.Linear(3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place.embedding
        return self.out(self.act(sequence).square().mean(1))


class Attention(nn.Module):
    """Attends over a sequence; positions come first inside when asked for."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.attend = nn.MultiheadAttention(4, 2, batch_first=batch_first)
        self.out = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence = x if self.batch_first else x.transpose(0, 1)
        attended, _ = self.attend(sequence, sequence, sequence, need_weights=False)
        return self.out(attended.mean(1 if self.batch_first else 0))


class Encoder(nn.Module):
    """A small transformer encoder for classification."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=5, batch_first=batch_first, activation="gelu")
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.body(x if self.batch_first else x.transpose(0, 1))
        return self.out(found.mean(1 if self.batch_first else 0))


class Recurrent(nn.Module):
    """Reads a sequence, the last state decides."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.read, self.out = kind(3, 4, batch_first=True), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.read(x)[0][:, -1])


class Folded(nn.Module):
    """Positions stand in the batch dim while the layer is called, as windows do in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.out = nn.Linear(3, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.each(x.flatten(0, 1))).unflatten(0, (len(x), -1)).sum(1))


class UsedElsewhere(nn.Module):
    """Uses a layer's weight once by calling the layer and once by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.out = nn.Linear(4, 3, bias=False), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.code(x)) @ self.code.weight)


# networks with layers whose Jacobian no input and output of the layer shows
DIFFERENTIATED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "own-parameters": (OwnParameters, (4, 3)),
    "attention": (Attention, (5, 4)),
    "attention-positions-first": (lambda: Attention(batch_first=False), (6, 4)),
    "encoder": (Encoder, (5, 4)),
    "encoder-positions-first": (lambda: Encoder(batch_first=False), (6, 4)),
    "lstm": (lambda: Recurrent(nn.LSTM), (4, 3)),
    "gru": (lambda: Recurrent(nn.GRU), (4, 3)),
    "folded": (Folded, (2, 3)),
    "used-elsewhere": (UsedElsewhere, (4,)),
}


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a network in evaluation mode, its weights and statistics all away from special values, and inputs."""
    make, shape = {**NETWORKS, **DIFFERENTIATED}[name]
    generator = torch.Generator().manual_seed(0)
    net = make().double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for module in net.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return net, torch.randn(NUM_DATA, *shape, generator=generator, dtype=torch.float64)


def weights_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def rules_of(net: nn.Module) -> dict[str, object]:
    """Return the rule of each layer that has weights of its own."""
    found = {}
    for name, module in net.named_modules():
        shapes = {key: tuple(value.shape) for key, value in module.named_parameters(recurse=False)}
        if shapes:
            found[name] = rule_for(module, shapes)
    return found


def captured(
    net: nn.Module,
    x: torch.Tensor,
    columns: Callable[[OutputLikelihood, object], torch.Tensor],
    likelihood: Callable[[torch.Tensor], OutputLikelihood] = CategoricalOutput,
) -> CapturedBatch:
    """Run one pass over one batch."""
    modules = {name: rule.module for name, rule in rules_of(net).items()}
    passed = CurvaturePass(lambda batch: likelihood(net(batch[0])), modules)
    return next(iter(passed.run([(x,)], columns)))


def jacobians(net: nn.Module, x: torch.Tensor, layer: str) -> torch.Tensor:
    """Return df/dw of one layer for each datum, in the rule's order, by reverse mode one sample at a time."""
    weights = weights_of(net)
    prefix = f"{layer}." if layer else ""
    own = {name: value for name, value in weights.items() if name.rpartition(".")[0] == layer}

    def outputs(values: dict[str, torch.Tensor], one: torch.Tensor) -> torch.Tensor:
        return functional_call(net, {**weights, **values}, (one[None],))[0]

    each = [jacrev(outputs)(own, one) for one in x]
    per_site = {name: torch.stack([found[name] for found in each]) for name in own}  # each (batch, outputs, *shape)
    rule = rules_of(net)[layer]
    return rule.join({name.removeprefix(prefix): value for name, value in per_site.items()})


def output_hessians(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return d²l/df² of the cross entropy for each datum; it does not depend on the label."""

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return torch.logsumexp(logits, -1)

    return torch.stack([hessian(loss)(logits) for logits in net(x).detach()])


def ggn_of_layer(net: nn.Module, x: torch.Tensor, layer: str) -> torch.Tensor:
    """Return Σ J' H J of one layer."""
    jacobian = jacobians(net, x, layer)
    return torch.einsum("nci,ncd,ndj->ij", jacobian, output_hessians(net, x), jacobian)
