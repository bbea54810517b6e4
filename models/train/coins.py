"""Labelled pictures for segmentation: coins cut out of one photograph, pasted onto others.

The mask of such a picture is known exactly. Coins of the photograph's last two columns, and two of
the backgrounds, appear in held-out pictures only.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import data, filters, measure, segmentation
from skimage.transform import AffineTransform, warp

import photographs

SIZE = 128
TRAINING_BACKGROUNDS = ("brick", "grass", "gravel", "moon", "coffee", "rocket", "retina")
HELD_OUT_BACKGROUNDS = ("camera", "immunohistochemistry")
# The photograph's column from which on every coin is held out.
HELD_OUT_COLUMN = 256
# Grey levels that are surely background and surely coin, and the smallest coin in pixels.
SURELY_BACKGROUND, SURELY_COIN, SMALLEST = 30, 150, 300
MOST_COINS = 6


@dataclass
class Coin:
    """A square around one coin: grey in 0..1, and its mask."""

    grey: np.ndarray
    mask: np.ndarray
    column: int


@dataclass
class Source:
    """What pictures are composed of: coins and backgrounds in 0..1, [H, W]."""

    coins: list[Coin]
    backgrounds: list[np.ndarray]


def coin_mask(image: np.ndarray) -> np.ndarray:
    """Where the photograph shows coins: watershed on the gradient, holes filled."""
    markers = np.where(image > SURELY_COIN, 2, np.where(image < SURELY_BACKGROUND, 1, 0))
    flooded = segmentation.watershed(filters.sobel(image), markers)
    return ndimage.binary_fill_holes(flooded == 2)


def cut_out() -> list[Coin]:
    """Every coin of the photograph, with a margin."""
    image = data.coins()
    labels = measure.label(coin_mask(image))
    coins = []
    for region in measure.regionprops(labels):
        if region.area < SMALLEST:
            continue
        row, column = (int(c) for c in region.centroid)
        half = max(np.ptp(region.coords, axis=0)) // 2 + 4
        square = (slice(row, row + 2 * half + 1), slice(column, column + 2 * half + 1))
        grey = np.pad(image, half, mode="edge")[square] / np.float32(255)
        mask = np.pad(labels == region.label, half)[square]
        coins.append(Coin(grey, mask.astype(np.float32), column))
    return coins


def sources() -> tuple[Source, Source]:
    """What training pictures and held-out pictures are made of; they share nothing."""
    coins = cut_out()

    def grey(names: tuple[str, ...]) -> list[np.ndarray]:
        return [photographs.luma(photographs.load(n))[0] for n in names]

    return (
        Source([c for c in coins if c.column < HELD_OUT_COLUMN], grey(TRAINING_BACKGROUNDS)),
        Source([c for c in coins if c.column >= HELD_OUT_COLUMN], grey(HELD_OUT_BACKGROUNDS)),
    )


def paste(image: np.ndarray, mask: np.ndarray, coin: Coin, rng: np.random.Generator) -> None:
    """Draws a coin, turned, scaled and re-lit, at a random place of `image` and of `mask`."""
    to_middle = AffineTransform(translation=np.full(2, -(coin.grey.shape[0] - 1) / 2))
    placed = AffineTransform(
        scale=rng.uniform(0.45, 1.1),
        rotation=rng.uniform(0, 2 * np.pi),
        translation=rng.uniform(0, SIZE, 2),
    )
    inverse = (to_middle + placed).inverse
    alpha = warp(coin.mask, inverse, output_shape=image.shape)
    grey = warp(coin.grey, inverse, output_shape=image.shape, mode="edge")
    grey = (grey - 0.5) * rng.uniform(0.6, 1.2) + 0.5 + rng.uniform(-0.25, 0.2)
    image += alpha * (grey - image)
    mask[alpha > 0.5] = 1


def picture(source: Source, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A composed picture in 0..1 and its mask of zeros and ones, both [SIZE, SIZE]."""
    full = source.backgrounds[rng.integers(len(source.backgrounds))]
    step = rng.integers(1, min(full.shape) // SIZE + 1)
    top, left = (rng.integers(n - step * SIZE + 1) for n in full.shape)
    image = full[top : top + step * SIZE : step, left : left + step * SIZE : step].copy()
    image = (image - image.mean()) * rng.uniform(0.4, 1.1) + rng.uniform(0.15, 0.75)
    image = np.rot90(image, rng.integers(4)).astype(np.float32).copy()
    mask = np.zeros_like(image)
    for _ in range(rng.integers(MOST_COINS + 1)):
        paste(image, mask, source.coins[rng.integers(len(source.coins))], rng)
    image += rng.normal(0, rng.uniform(0, 0.03), image.shape)
    return image.clip(0, 1).astype(np.float32), mask


def pictures(source: Source, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` composed pictures and masks, both [count, 1, SIZE, SIZE]."""
    rng = np.random.default_rng(seed)
    images, masks = zip(*(picture(source, rng) for _ in range(count)), strict=True)
    return np.stack(images)[:, None], np.stack(masks)[:, None]


def held_out_part() -> tuple[np.ndarray, np.ndarray]:
    """The photograph's own held-out part, [1, 1, SIZE, SIZE], and its watershed mask."""
    image = data.coins()
    part = (slice(0, SIZE), slice(HELD_OUT_COLUMN, HELD_OUT_COLUMN + SIZE))
    mask = coin_mask(image)[part].astype(np.float32)
    return (image[part] / np.float32(255))[None, None], mask[None, None]
