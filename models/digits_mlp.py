"""A small network for scikit-learn's digits: 64-64-10 with tanh, 4,810 weights.

The default of `wiu run`. Layers: ``fc1`` (pixels to hidden units) and ``fc2`` (hidden units to classes).
"""

from torch import Tensor, nn

import wiu_pyro as wiu

DATA = "digits"
EPOCHS = 60
HIDDEN = 64


class DigitsMLP(nn.Module):
    """One hidden layer of tanh units."""

    def __init__(self, num_pixels: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_pixels, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (batch, num_classes), of images (batch, channels, height, width)."""
        x = x.flatten(1)  # (batch, num_pixels)
        x = self.fc1(x).tanh()  # (batch, HIDDEN)
        return self.fc2(x)


def build(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> wiu.nn.BayesianNetwork:
    """Return the network as a Pyro model; ``image_size`` is (height, width)."""
    height, width = image_size
    net = DigitsMLP(in_channels * height * width, num_classes)
    return wiu.nn.BayesianNetwork(net, prior=wiu.nn.FanInNormal(), likelihood="categorical")
