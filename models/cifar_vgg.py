"""VGG-11, -13, -16 or -19 for images of 32 x 32, at a quarter of its width: 579,786 weights in VGG-11 with BatchNorm.

After Simonyan and Zisserman (2015), Very Deep Convolutional Networks for Large-Scale Image Recognition, table 1, with
one linear layer in the place of three: five poolings leave one position of a small image. The convolutions are those of
torchvision's ``vgg11`` to ``vgg19_bn``, by order and name. Layers: ``features.0``, ``features.1``, ..., ``classifier``.

``cifar_vgg`` is VGG-11 with BatchNorm at a quarter of the width, ``cifar_vgg:depth=16:width=1`` VGG-16 at all of it,
``cifar_vgg:batch_norm=false`` has no BatchNorm.
"""

from torch import Tensor, nn

import wiu_pyro as wiu

DATA = "cifar10"
EPOCHS = 24
VI_EPOCHS = 24
LEARNING_RATE = 2e-3
AUGMENT = wiu.datasets.FlipAndCrop(padding=4)
PIXEL_MEAN_SQUARE = 0.287  # of CIFAR-10, pixels in 0 … 1; what the prior of the first layer is scaled for
WIDTHS = (64, 128, 256, 512, 512)  # channels of the convolutions before each pooling
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
SMALLEST_SIDE = 2 ** len(WIDTHS)  # below it the last pooling has nothing left


class VGG(nn.Module):
    """Blocks of 3 x 3 convolutions, a pooling after each, then one linear layer."""

    def __init__(self, depth: int, width: float, *, batch_norm: bool, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for full, number in zip(WIDTHS, CONVOLUTIONS[depth], strict=True):
            channels = round(full * width)
            for _ in range(number):
                self.features.append(nn.Conv2d(in_channels, channels, kernel_size=3, padding=1))
                if batch_norm:
                    self.features.append(nn.BatchNorm2d(channels))
                self.features.append(nn.ReLU(inplace=True))
                in_channels = channels
            self.features.append(nn.MaxPool2d(2))
        self.pool = nn.AdaptiveAvgPool2d(1)  # larger images leave more positions than one
        self.classifier = nn.Linear(in_channels, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (batch, num_classes), of images (batch, channels, height, width)."""
        x = self.pool(self.features(x))  # (batch, last channels, 1, 1)
        return self.classifier(x.flatten(1))


def _initialise(module: nn.Module) -> None:
    """Let ReLU layers keep the scale of their input (He et al. 2015), as torchvision's VGG does, forwards."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


def build(
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    *,
    depth: int = 11,
    width: float = 0.25,
    batch_norm: bool = True,
) -> wiu.nn.BayesianNetwork:
    """Return the network as a Pyro model; ``image_size`` is (height, width), ``width`` a part of the full network's."""
    if depth not in CONVOLUTIONS:
        known = ", ".join(map(str, CONVOLUTIONS))
        raise wiu.errors.ModelError(f"VGG has a depth of {known}, but depth is {depth}. For example depth=11.")
    if not 1 / WIDTHS[0] <= width <= 16:
        raise wiu.errors.ModelError(
            f"VGG needs a width that leaves a channel in each layer, but width is {width:g}. For example width=0.25."
        )
    if min(image_size) < SMALLEST_SIDE:
        high, wide = image_size
        raise wiu.errors.ModelError(
            f"VGG needs images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, but these are {high} x {wide}. "
            "Use mnist_lenet or digits_mlp for smaller ones."
        )
    net = VGG(depth, width, batch_norm=batch_norm, num_classes=num_classes, in_channels=in_channels)
    prior = {"features.0.weight": wiu.nn.FanInNormal(input_mean_square=PIXEL_MEAN_SQUARE), "*": wiu.nn.FanInNormal()}
    return wiu.nn.BayesianNetwork(net, prior=prior, likelihood="categorical")
