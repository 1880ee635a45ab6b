"""A transform of a user's own that draws from every generator there is."""

import random

import numpy as np
import torch
from torch import Tensor


def fainter(clip: Tensor) -> Tensor:
    """Multiply a clip (T, C, H, W) uint8 by a random number, and add noise: -> floats of 0 to 1."""
    factor = 1 - (random.random() + np.random.random()) / 4
    return clip * (factor / 255) + torch.rand(clip.shape) / 8
