"""A small network for scikit-learn's digits: 64-64-10 with ReLU, 4,810 weights.

The default of `wiu run`. Layers: ``fc1`` (pixels to hidden units) and ``fc2`` (hidden units to classes).
"""

from torch import Tensor, nn

import wiu_pyro as wiu

DATA = "digits"
EPOCHS = 150
VI_EPOCHS = 700
LEARNING_RATE = 5e-3
PIXEL_MEAN_SQUARE = 0.235  # of the digits, pixels in 0 … 1; what the prior of the first layer is scaled for
HIDDEN = 64


class DigitsMLP(nn.Module):
    """One hidden layer of ReLU units."""

    def __init__(self, num_pixels: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_pixels, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (batch, num_classes), of images (batch, channels, height, width)."""
        x = x.flatten(1)  # (batch, num_pixels)
        x = self.fc1(x).relu()  # (batch, HIDDEN)
        return self.fc2(x)


def build(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> wiu.nn.BayesianNetwork:
    """Return the network as a Pyro model; ``image_size`` is (height, width)."""
    height, width = image_size
    net = DigitsMLP(in_channels * height * width, num_classes)
    prior = {"fc1.weight": wiu.nn.FanInNormal(input_mean_square=PIXEL_MEAN_SQUARE), "*": wiu.nn.FanInNormal()}
    return wiu.nn.BayesianNetwork(net, prior=prior, likelihood="categorical")
