"""Two hidden layers of 400 ReLU units, 784-400-400-10 on MNIST: 478,410 weights.

The network of Blundell et al. (2015), Weight Uncertainty in Neural Networks. Layers: ``fc1``, ``fc2``, ``fc3``.
"""

from torch import Tensor, nn

import wiu_pyro as wiu

DATA = "mnist"
EPOCHS = 20
VI_EPOCHS = 20
PIXEL_MEAN_SQUARE = 0.112  # of MNIST, pixels in 0 … 1; what the prior of the first layer is scaled for
HIDDEN = 400


class MLP(nn.Module):
    """Two hidden layers of ReLU units."""

    def __init__(self, num_pixels: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_pixels, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.fc3 = nn.Linear(HIDDEN, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (batch, num_classes), of images (batch, channels, height, width)."""
        x = x.flatten(1)  # (batch, num_pixels)
        x = self.fc1(x).relu()  # (batch, HIDDEN)
        x = self.fc2(x).relu()  # (batch, HIDDEN)
        return self.fc3(x)


def build(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> wiu.nn.BayesianNetwork:
    """Return the network as a Pyro model; ``image_size`` is (height, width)."""
    height, width = image_size
    net = MLP(in_channels * height * width, num_classes)
    prior = {"fc1.weight": wiu.nn.FanInNormal(input_mean_square=PIXEL_MEAN_SQUARE), "*": wiu.nn.FanInNormal()}
    return wiu.nn.BayesianNetwork(net, prior=prior, likelihood="categorical")
