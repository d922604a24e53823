"""LeNet-5 with ReLU and max pooling: two convolutions, three linear layers, 61,706 weights on MNIST.

After LeCun et al. (1998), Gradient-Based Learning Applied to Document Recognition. Layers: ``conv1``, ``conv2``,
``fc1``, ``fc2``, ``fc3``.
"""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import wiu_pyro as wiu

DATA = "mnist"
EPOCHS = 15
VI_EPOCHS = 30
PIXEL_MEAN_SQUARE = 0.112  # of MNIST, pixels in 0 … 1; what the prior of the first layer is scaled for
SMALLEST_SIDE = 12  # below it the second pooling has nothing left


class LeNet(nn.Module):
    """Two convolutions with pooling, then three linear layers."""

    def __init__(self, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = ((side // 2 - 4) // 2 for side in image_size)  # after both poolings: 5 x 5 on MNIST
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (batch, num_classes), of images (batch, channels, height, width)."""
        x = F.max_pool2d(self.conv1(x).relu(), 2)  # (batch, 6, height / 2, width / 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2)  # (batch, 16, (height / 2 - 4) / 2, (width / 2 - 4) / 2)
        x = x.flatten(1)
        x = self.fc1(x).relu()  # (batch, 120)
        x = self.fc2(x).relu()  # (batch, 84)
        return self.fc3(x)


def build(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> wiu.nn.BayesianNetwork:
    """Return the network as a Pyro model; ``image_size`` is (height, width)."""
    if min(image_size) < SMALLEST_SIDE:
        height, width = image_size
        raise wiu.errors.ModelError(
            f"LeNet-5 needs images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, "
            f"but these are {height} x {width}. Use digits_mlp or mnist_mlp for smaller ones."
        )
    net = LeNet(num_classes, in_channels, image_size)
    prior = {"conv1.weight": wiu.nn.FanInNormal(input_mean_square=PIXEL_MEAN_SQUARE), "*": wiu.nn.FanInNormal()}
    return wiu.nn.BayesianNetwork(net, prior=prior, likelihood="categorical")
