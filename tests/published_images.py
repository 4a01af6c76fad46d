"""The 500 embedded images as the published networks of tests/data/published were fed."""

import numpy as np

from bitfold.models import PublishedPreprocessing, load_images

PREPROCESSING = PublishedPreprocessing((0.2860,) * 3, (0.3530,) * 3)


def images_of(side):
    """Padded by two pixels to 32, or doubled and padded to 64; three channels."""
    images = load_images("embedded").images
    if side == 64:
        images = images.repeat(2, axis=1).repeat(2, axis=2)
    margin = (side - images.shape[1]) // 2
    return np.repeat(np.pad(images, ((0, 0), (margin,) * 2, (margin,) * 2, (0, 0))), 3, axis=3)
