"""The photographs that ship inside scikit-image's wheel, and how they are resampled and compared.

Which part each plays is fixed here; models/README.md names their licences.
"""

import numpy as np
from PIL import Image
from skimage import data

SCALE = 3
TRAINING = (
    "coffee",
    "rocket",
    "immunohistochemistry",
    "retina",
    "hubble_deep_field",
    "brick",
    "grass",
    "gravel",
    "moon",
    "coins",
    "page",
    "text",
    "clock",
)
HELD_OUT = ("astronaut", "camera", "chelsea")


def load(name: str) -> np.ndarray:
    """The photograph as float32 in 0..1, shape [C, H, W] with C = 3 or 1."""
    image = np.asarray(getattr(data, name)(), np.float32) / 255.0
    return np.atleast_3d(image).transpose(2, 0, 1)


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma of [C, H, W], full range, shape [1, H, W]."""
    if image.shape[0] == 1:
        return image
    return np.tensordot(np.float32([[0.299, 0.587, 0.114]]), image, 1)


def crop_to_multiple(image: np.ndarray, of: int = SCALE) -> np.ndarray:
    """The top left part whose height and width are multiples of `of`."""
    h, w = (n - n % of for n in image.shape[1:])
    return image[:, :h, :w]


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic (a = -0.5), with the kernel widened when it shrinks; clipped to 0..1."""
    planes = [Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC) for p in image]
    return np.stack([np.asarray(p, np.float32) for p in planes]).clip(0, 1)


def shrink(image: np.ndarray) -> np.ndarray:
    """The low-resolution partner: a third of the size, rounded to 8 bits as a file would be."""
    small = resize(image, image.shape[1] // SCALE, image.shape[2] // SCALE)
    return np.round(small * 255) / np.float32(255)


def enlarge(image: np.ndarray) -> np.ndarray:
    """The baseline: bicubic, three times the size."""
    return resize(image, image.shape[1] * SCALE, image.shape[2] * SCALE)


def psnr(a: np.ndarray, b: np.ndarray, border: int = SCALE) -> float:
    """PSNR in dB of two images in 0..1, without a border of `border` pixels."""
    inner = (..., slice(border, -border), slice(border, -border))
    error = np.mean((a[inner].astype(np.float64) - b[inner]) ** 2)
    return float(-10 * np.log10(error))
