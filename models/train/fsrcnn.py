"""Trains models/fsrcnn_x3.onnx: FSRCNN(56, 12, 4), three times the size, one channel.

The network works on one channel, so a colour picture goes in as a batch of three.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import photographs
from layers import conv, conv_transpose, per_channel, prelu
from onnx_graph import Graph, save
from photographs import SCALE

SEED = 3
WIDE, NARROW, DEPTH = 56, 12, 4
BATCH, PATCH = 32, 24
AUGMENTED_SIZES = (1.0, 0.8, 0.6)
# Conv layers in order: name, Cout, Cin, kernel; each is followed by a PRelu.
CONVS = [
    ("feature", WIDE, 1, 5),
    ("shrink", NARROW, WIDE, 1),
    *((f"map.{i}", NARROW, NARROW, 3) for i in range(DEPTH)),
    ("expand", WIDE, NARROW, 1),
]
DECONV = {"stride": SCALE, "pad": 4, "output_padding": 2}
DECONV_KERNEL = 9
# The picture in the README: a part of the first held-out photograph, in high-resolution pixels.
PICTURE_PART = {"top": 0, "left": 90, "size": 288}


def cubic(distance: np.ndarray) -> np.ndarray:
    """The bicubic kernel (a = -0.5) at a distance in low-resolution pixels."""
    d = np.abs(distance)
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0))


def initial_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """He-normal convolutions, but channel 0 of every layer passes the picture on unchanged.

    The deconvolution starts as a bicubic kernel on that channel, so training starts near the
    baseline and spends its few minutes on what the baseline lacks.
    """
    weights = {}
    for name, cout, cin, k in CONVS:
        weight = rng.normal(0, np.sqrt(2 / (cin * k * k)), (cout, cin, k, k))
        weight[0] = 0
        weight[0, 0, k // 2, k // 2] = 1
        weights[f"{name}.weight"] = weight
        weights[f"{name}.bias"] = np.zeros(cout)
        weights[f"{name}.slope"] = np.full((cout, 1, 1), 0.25)
    k = DECONV_KERNEL
    # Output o = SCALE * i - pad + tap has its centre at (o - 1) / SCALE among the inputs.
    taps = cubic((np.arange(k) - DECONV["pad"] - 1) / SCALE)
    for phase in range(SCALE):
        taps[phase::SCALE] /= taps[phase::SCALE].sum()
    weights["deconv.weight"] = rng.normal(0, 0.001, (WIDE, 1, k, k))
    weights["deconv.weight"][0, 0] = np.outer(taps, taps)
    weights["deconv.bias"] = np.zeros(1)
    return {k: np.asarray(v, np.float32) for k, v in weights.items()}


def forward(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """[N, 1, H, W] to [N, 1, 3H, 3W]."""
    for name, _, _, k in CONVS:
        x = conv(x, w[f"{name}.weight"], pad=k // 2) + per_channel(w[f"{name}.bias"])
        x = prelu(x, w[f"{name}.slope"])
    return conv_transpose(x, w["deconv.weight"], **DECONV) + per_channel(w["deconv.bias"])


def training_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """(low, high) for every colour channel of every training photograph in several sizes."""
    pairs = []
    for name in photographs.TRAINING:
        full = photographs.load(name)
        for size in AUGMENTED_SIZES:
            h, w = (int(n * size) for n in full.shape[1:])
            image = full if size == 1 else photographs.resize(full, h, w)
            high = photographs.crop_to_multiple(image)
            low = photographs.shrink(high)
            pairs += zip(low, high, strict=True)
    return pairs


def batch(
    pairs: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random patches, randomly flipped and transposed: [BATCH, 1, PATCH, PATCH] and its target."""
    lows, highs = [], []
    for index in rng.integers(len(pairs), size=BATCH):
        low, high = pairs[index]
        top, left = (rng.integers(n - PATCH + 1) for n in low.shape)
        low = low[top : top + PATCH, left : left + PATCH]
        top, left, size = top * SCALE, left * SCALE, PATCH * SCALE
        high = high[top : top + size, left : left + size]
        flip = tuple(axis for axis in (0, 1) if rng.random() < 0.5)
        low, high = np.flip(low, flip), np.flip(high, flip)
        if rng.random() < 0.5:
            low, high = low.T, high.T
        lows.append(low)
        highs.append(high)
    return np.stack(lows)[:, None], np.stack(highs)[:, None]


def train(steps: int) -> dict[str, np.ndarray]:
    """Minimises the mean squared error for `steps` steps."""
    rng = np.random.default_rng(SEED)
    weights = initial_weights(rng)
    pairs = training_pairs()
    optimiser = optax.adam(optax.warmup_cosine_decay_schedule(1e-4, 2e-3, 100, steps))
    state = optimiser.init(weights)

    @jax.jit
    def step(weights, state, low, high):
        def loss(w):
            return jnp.mean((forward(w, low) - high) ** 2)

        value, gradient = jax.value_and_grad(loss)(weights)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(weights, updates), state, value

    start = time.monotonic()
    for number in range(steps):
        weights, state, value = step(weights, state, *batch(pairs, rng))
        if number % 100 == 99:
            spent = time.monotonic() - start
            print(f"step {number + 1}: loss {float(value):.5f}, {spent:.0f} s", flush=True)
    return {k: np.asarray(v) for k, v in weights.items()}


def report(weights: dict[str, np.ndarray]) -> None:
    """Prints luma PSNR against bicubic on the photographs that training never saw."""
    run = jax.jit(forward)
    for name in photographs.HELD_OUT:
        high = photographs.luma(photographs.crop_to_multiple(photographs.load(name)))
        low = photographs.shrink(high)
        ours = np.asarray(run(weights, low[None]))[0].clip(0, 1)
        bicubic = photographs.psnr(photographs.enlarge(low), high)
        print(f"{name}: bicubic {bicubic:.2f} dB, network {photographs.psnr(ours, high):.2f} dB")


def picture_original() -> np.ndarray:
    """The part of the held-out photograph that the README shows, [3, H, W]."""
    top, left, size = PICTURE_PART.values()
    photograph = photographs.load(photographs.HELD_OUT[0])
    return photograph[:, top : top + size, left : left + size]


def export(weights: dict[str, np.ndarray]) -> None:
    """Writes the model, and as its input the part of the held-out photograph for the picture."""
    graph = Graph("fsrcnn_x3", weights)
    x = "low"
    for name, _, _, k in CONVS:
        x = graph.conv(x, name, k, k // 2, f"{name}.conv")
        x = graph.add("PRelu", [x, f"{name}.slope"], f"{name}.prelu")
    graph.conv_transpose(x, "deconv", DECONV_KERNEL, output="high", **DECONV)
    model = graph.model(
        {"low": ["batch", 1, "height", "width"]},
        {"high": ["batch", 1, f"{SCALE}*height", f"{SCALE}*width"]},
        "FSRCNN(56, 12, 4), x3, one channel in 0..1",
    )
    low = photographs.shrink(picture_original())[:, None]
    save(model, {"low": low}, {"high": np.asarray(forward(weights, low))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2200)
    arguments = parser.parse_args()
    weights = train(arguments.steps)
    report(weights)
    export(weights)


if __name__ == "__main__":
    main()
