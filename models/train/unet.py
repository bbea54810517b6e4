"""Trains models/unet_segment.onnx: a small U-Net that marks coins on any background."""

import argparse
import time
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from skimage.filters import threshold_otsu

import coins
from layers import (
    BATCH_NORM_EPSILON,
    batch_norm,
    batch_statistics,
    conv,
    conv_transpose,
    max_pool_2x2,
    per_channel,
)
from onnx_graph import Graph, save

SEED = 7
BATCH = 8
# Feature maps at 128x128, 64x64, 32x32, 16x16.
WIDTHS = (8, 16, 32, 64)
TRAINING_PICTURES, HELD_OUT_PICTURES = 1500, 200
# Running statistics follow each batch by this much.
MOMENTUM = 0.05

Weights = dict[str, jax.Array]


def blocks() -> list[tuple[str, int, int]]:
    """(name, Cin, Cout) of every pair of convolutions, encoder first."""
    down = [(f"down.{i}", *channels) for i, channels in enumerate(pairwise((1, *WIDTHS)))]
    return down + [(f"join.{i}", 2 * WIDTHS[i], WIDTHS[i]) for i in decoder_levels()]


def decoder_levels() -> range:
    """Levels of the decoder, deepest first."""
    return range(len(WIDTHS) - 2, -1, -1)


def initial_weights(rng: np.random.Generator) -> tuple[Weights, Weights]:
    """He-normal weights, and the running statistics of the normalisations."""
    weights, statistics = {}, {}

    def normal(name: str, shape: tuple[int, ...], fan_in: int) -> None:
        weights[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / fan_in), shape)

    for name, cin, cout in blocks():
        for number, c in enumerate((cin, cout)):
            normal(f"{name}.conv.{number}", (cout, c, 3, 3), 9 * c)
            bn = f"{name}.bn.{number}"
            weights[f"{bn}.weight"], weights[f"{bn}.bias"] = np.ones(cout), np.zeros(cout)
            statistics[f"{bn}.running_mean"] = np.zeros(cout)
            statistics[f"{bn}.running_var"] = np.ones(cout)
    for i in decoder_levels():
        cin, cout = WIDTHS[i + 1], WIDTHS[i]
        normal(f"up.{i}", (cin, cout, 2, 2), cin)
        weights[f"up.{i}.bias"] = np.zeros(cout)
    normal("mask", (1, WIDTHS[0], 1, 1), WIDTHS[0])
    weights["mask.bias"] = np.zeros(1)
    return tuple(
        {k: np.asarray(v, np.float32) for k, v in d.items()} for d in (weights, statistics)
    )


def logits(w: Weights, statistics: Weights | None, x: jax.Array) -> tuple[jax.Array, Weights]:
    """[N, 1, H, W] to the logits of the mask; H and W divisible by 8.

    Without `statistics` the batch's own are used; those used are returned.
    """
    used = {}

    def block(name: str, x: jax.Array) -> jax.Array:
        for number in range(2):
            x = conv(x, w[f"{name}.conv.{number}.weight"], pad=1)
            bn = f"{name}.bn.{number}"
            mean, var = f"{bn}.running_mean", f"{bn}.running_var"
            known = statistics and (statistics[mean], statistics[var])
            used[mean], used[var] = known or batch_statistics(x)
            x = batch_norm(x, w[f"{bn}.weight"], w[f"{bn}.bias"], used[mean], used[var])
            x = jax.nn.relu(x)
        return x

    skips = []
    for i in range(len(WIDTHS)):
        x = block(f"down.{i}", max_pool_2x2(x) if i else x)
        skips.append(x)
    for i in decoder_levels():
        x = conv_transpose(x, w[f"up.{i}.weight"], stride=2, pad=0)
        x = x + per_channel(w[f"up.{i}.bias"])
        x = block(f"join.{i}", jnp.concatenate([skips[i], x], 1))
    return conv(x, w["mask.weight"]) + per_channel(w["mask.bias"]), used


def train(images: np.ndarray, masks: np.ndarray, steps: int) -> tuple[Weights, Weights]:
    """Minimises cross-entropy plus soft Dice loss; returns weights and running statistics."""
    rng = np.random.default_rng(SEED)
    weights, statistics = initial_weights(rng)
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    state = optimiser.init(weights)

    @jax.jit
    def step(weights, statistics, state, x, mask):
        def loss(w):
            logit, used = logits(w, None, x)
            chance = jax.nn.sigmoid(logit)
            overlap = 2 * (chance * mask).sum() / (chance.sum() + mask.sum() + 1)
            entropy = optax.sigmoid_binary_cross_entropy(logit, mask).mean()
            return entropy + 1 - overlap, used

        (value, used), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
        updates, state = optimiser.update(gradient, state)
        statistics = optax.incremental_update(used, statistics, MOMENTUM)
        return optax.apply_updates(weights, updates), statistics, state, value

    start = time.monotonic()
    for number in range(steps):
        chosen = rng.integers(len(images), size=BATCH)
        weights, statistics, state, value = step(
            weights, statistics, state, images[chosen], masks[chosen]
        )
        if number % 100 == 99:
            spent = time.monotonic() - start
            print(f"step {number + 1}: loss {float(value):.3f}, {spent:.0f} s", flush=True)
    return weights, statistics


def iou(found: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of two masks, all pixels of all pictures together."""
    found, mask = found > 0.5, mask > 0.5
    return float((found & mask).sum() / (found | mask).sum())


def otsu(images: np.ndarray) -> np.ndarray:
    """The baseline: each picture's bright part by Otsu's threshold."""
    return np.stack([i > threshold_otsu(i) for i in images[:, 0]])[:, None]


def report(segment, held_out: coins.Source) -> None:
    """Prints IoU on held-out pictures, and on the held-out part of the coins' own photograph."""
    composed = coins.pictures(held_out, HELD_OUT_PICTURES, SEED + 2)
    for name, (images, masks) in (
        ("composed", composed),
        ("photograph", coins.held_out_part()),
    ):
        ours = iou(np.asarray(segment(images)), masks)
        print(f"{name}: IoU Otsu {iou(otsu(images), masks):.3f}, network {ours:.3f}")


def export(weights: Weights, statistics: Weights, segment, held_out: coins.Source) -> None:
    """Writes the model and one held-out picture."""
    graph = Graph("unet_segment", weights | statistics)

    def block(name: str, x: str) -> str:
        for n in range(2):
            x = graph.conv(x, f"{name}.conv.{n}", 3, 1, f"{name}.conv.{n}.out", bias=False)
            x = graph.batch_norm(x, f"{name}.bn.{n}", BATCH_NORM_EPSILON, f"{name}.bn.{n}.out")
            x = graph.add("Relu", [x], f"{name}.relu.{n}.out")
        return x

    x, skips = "image", []
    for i in range(len(WIDTHS)):
        if i:
            x = graph.add("MaxPool", [x], f"pool.{i}.out", kernel_shape=[2, 2], strides=[2, 2])
        x = block(f"down.{i}", x)
        skips.append(x)
    for i in decoder_levels():
        x = graph.conv_transpose(x, f"up.{i}", 2, 2, 0, f"up.{i}.out")
        x = graph.add("Concat", [skips[i], x], f"concat.{i}.out", axis=1)
        x = block(f"join.{i}", x)
    x = graph.conv(x, "mask", 1, 0, "mask.logit")
    graph.add("Sigmoid", [x], "mask")
    shape = [1, 1, coins.SIZE, coins.SIZE]
    model = graph.model({"image": shape}, {"mask": shape}, "U-Net: chance of coin per pixel")
    image, _ = coins.pictures(held_out, 1, SEED + 3)
    save(model, {"image": image}, {"mask": np.asarray(segment(image))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    training, held_out = coins.sources()
    images, masks = coins.pictures(training, TRAINING_PICTURES, SEED + 1)
    weights, statistics = train(images, masks, arguments.steps)

    @jax.jit
    def segment(image):
        return jax.nn.sigmoid(logits(weights, statistics, image)[0])

    report(segment, held_out)
    export(weights, statistics, segment, held_out)


if __name__ == "__main__":
    main()
