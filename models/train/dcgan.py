"""Trains models/dcgan_digits.onnx: a DCGAN generator of 32x32 handwritten digits.

Ten channels of its input name the digit to draw, one-hot; the others are normal noise, the hand.
The discriminator also tells the digits apart, and the generator is held to that (AC-GAN).
Discriminator and judge of the result live here too; only the generator is written.
"""

import argparse
import time
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.linalg import sqrtm
from skimage.transform import downscale_local_mean, resize
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from layers import BATCH_NORM_EPSILON, batch_norm, batch_statistics, conv, conv_transpose
from onnx_graph import Graph, save

SEED = 5
DIGITS, NOISE = 10, 24
LATENT = DIGITS + NOISE
SIZE = 32
BATCH = 64
# Feature maps of the generator after each up-sampling: 4x4, 8x8, 16x16, 32x32.
GENERATOR = (LATENT, 96, 48, 24, 1)
DISCRIMINATOR = (1, 24, 48, 96)
KERNEL = 4
# Stride and pad of the first deconvolution (from 1x1) and of the others.
FIRST, DOUBLE = {"stride": 1, "pad": 0}, {"stride": 2, "pad": 1}
# Weights are averaged over about this many steps; the average draws cleaner digits.
AVERAGING = 200

Weights = dict[str, jax.Array]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 8x8 digits in 0..1, shape [N, 8, 8], and which digit each is."""
    data = load_digits()
    return data.images.astype(np.float32) / 16, data.target


def enlarged(images: np.ndarray) -> np.ndarray:
    """The digits at 32x32 in -1..1, shape [N, 1, 32, 32].

    The set counts the ink of a 32x32 scan in blocks of 4x4; this goes back to about that scan:
    smooth interpolation, then contrast that makes strokes of it again.
    """
    smooth = np.stack([resize(i, (SIZE, SIZE), order=3, mode="constant") for i in images])
    return np.tanh(4 * (smooth.clip(0, 1) - 0.5)).astype(np.float32)[:, None] / np.tanh(2)


def reduced(images: np.ndarray) -> np.ndarray:
    """Back from [N, 1, 32, 32] in -1..1 to 64 block means in 0..1, shape [N, 64]."""
    return downscale_local_mean((images[:, 0] + 1) / 2, (1, 4, 4)).reshape(len(images), -1)


def initial_weights(rng: np.random.Generator) -> tuple[Weights, Weights]:
    """Generator and discriminator kernels normal with deviation 0.05."""

    def kernel(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.05, shape).astype(np.float32)

    g, d = {}, {}
    for i, (cin, cout) in enumerate(pairwise(GENERATOR)):
        g[f"up.{i}.weight"] = kernel(cin, cout, KERNEL, KERNEL)
        if i + 2 < len(GENERATOR):
            g[f"bn.{i}.weight"] = np.ones(cout, np.float32)
            g[f"bn.{i}.bias"] = np.zeros(cout, np.float32)
    for i, (cin, cout) in enumerate(pairwise(DISCRIMINATOR)):
        d[f"down.{i}.weight"] = kernel(cout, cin, KERNEL, KERNEL)
        if i > 0:
            d[f"bn.{i}.weight"] = np.ones(cout, np.float32)
            d[f"bn.{i}.bias"] = np.zeros(cout, np.float32)
    d["score.weight"] = kernel(1 + DIGITS, DISCRIMINATOR[-1], KERNEL, KERNEL)
    return g, d


def generate(g: Weights, z: jax.Array) -> tuple[jax.Array, Weights]:
    """[N, LATENT, 1, 1] to [N, 1, 32, 32] in -1..1, and the batch statistics that it used.

    Statistics that `g` holds (running_mean, running_var) are used instead of the batch's own.
    """
    x, used = z, {}
    hidden = len(GENERATOR) - 2
    for i in range(hidden):
        x = conv_transpose(x, g[f"up.{i}.weight"], **(DOUBLE if i else FIRST))
        mean, var = f"bn.{i}.running_mean", f"bn.{i}.running_var"
        used[mean], used[var] = (g[mean], g[var]) if mean in g else batch_statistics(x)
        x = batch_norm(x, g[f"bn.{i}.weight"], g[f"bn.{i}.bias"], used[mean], used[var])
        x = jax.nn.relu(x)
    return jnp.tanh(conv_transpose(x, g[f"up.{hidden}.weight"], **DOUBLE)), used


def discriminate(d: Weights, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logit that an image is real, shape [N], and of each digit, shape [N, DIGITS]."""
    for i in range(len(DISCRIMINATOR) - 1):
        x = conv(x, d[f"down.{i}.weight"], stride=2, pad=1)
        if i > 0:
            x = batch_norm(x, d[f"bn.{i}.weight"], d[f"bn.{i}.bias"], *batch_statistics(x))
        x = jax.nn.leaky_relu(x, 0.2)
    score = conv(x, d["score.weight"])[:, :, 0, 0]
    return score[:, 0], score[:, 1:]


def judgement(d: Weights, x: jax.Array, digit: jax.Array, real: float) -> jax.Array:
    """Mean cross-entropy of taking `x` for real with chance `real`, and for `digit`."""
    on_real, on_digit = discriminate(d, x)
    entropy = optax.sigmoid_binary_cross_entropy(on_real, real)
    return (entropy + optax.softmax_cross_entropy_with_integer_labels(on_digit, digit)).mean()


def latent(rng: np.random.Generator, digit: np.ndarray) -> np.ndarray:
    """Inputs that ask for each `digit` in some hand, shape [N, LATENT, 1, 1]."""
    asked = np.eye(DIGITS, dtype=np.float32)[digit]
    hand = rng.standard_normal((len(digit), NOISE), np.float32)
    return np.concatenate([asked, hand], 1)[:, :, None, None]


def train(images: np.ndarray, target: np.ndarray, steps: int) -> Weights:
    """Lets both networks play; returns the averaged generator with its statistics."""
    rng = np.random.default_rng(SEED)
    g, d = initial_weights(rng)
    average = g
    rule = optax.adam(optax.linear_schedule(4e-4, 5e-5, steps), b1=0.5)
    g_state, d_state = rule.init(g), rule.init(d)

    @jax.jit
    def step(g, d, average, g_state, d_state, real, z, digit):
        def d_loss(d):
            fake = jax.lax.stop_gradient(generate(g, z)[0])
            # A target of 0.9 instead of 1 keeps the discriminator from certainty.
            return judgement(d, real, digit, 0.9) + judgement(d, fake, digit, 0.0)

        def g_loss(g):
            return judgement(d, generate(g, z)[0], digit, 1.0)

        d_value, gradient = jax.value_and_grad(d_loss)(d)
        updates, d_state = rule.update(gradient, d_state)
        d = optax.apply_updates(d, updates)
        g_value, gradient = jax.value_and_grad(g_loss)(g)
        updates, g_state = rule.update(gradient, g_state)
        g = optax.apply_updates(g, updates)
        average = optax.incremental_update(g, average, 1 / AVERAGING)
        return g, d, average, g_state, d_state, d_value, g_value

    start = time.monotonic()
    for number in range(steps):
        chosen = rng.integers(len(images), size=BATCH)
        digit = target[chosen]
        g, d, average, g_state, d_state, d_value, g_value = step(
            g, d, average, g_state, d_state, images[chosen], latent(rng, digit), digit
        )
        if number % 200 == 199:
            spent = time.monotonic() - start
            losses = f"discriminator {float(d_value):.2f}, generator {float(g_value):.2f}"
            print(f"step {number + 1}: {losses}, {spent:.0f} s", flush=True)
    statistics = generate(average, latent(rng, rng.integers(DIGITS, size=2048)))[1]
    return {k: np.asarray(v) for k, v in (average | statistics).items()}


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the normal distributions fitted to two sets of vectors."""
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    spread = np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + spread)


def report(g: Weights, images: np.ndarray, target: np.ndarray) -> None:
    """Prints how an SVM that learnt from real digits reads the drawings, and Frechet distances."""
    rng = np.random.default_rng(SEED + 1)
    asked = rng.integers(DIGITS, size=2000)
    drawn = reduced(np.asarray(generate(g, latent(rng, asked))[0]))
    real = reduced(images)
    order = rng.permutation(len(real))
    half, other = order[::2], order[1::2]
    reader = SVC().fit(real[half], target[half])
    # Noise with each pixel's own mean and deviation: what a set without digits would score.
    noise = rng.normal(real.mean(0), real.std(0), (2000, real.shape[1])).clip(0, 1)
    sets = (("real", real[other], target[other]), ("drawn", drawn, asked), ("noise", noise, asked))
    for name, vectors, meant in sets:
        read = (reader.predict(vectors) == meant).mean()
        distance = frechet(vectors, real[half])
        print(f"{name}: read as meant {read:.1%}, Frechet distance {distance:.2f}")


def export(g: Weights) -> None:
    """Writes the generator and two drawings of each digit."""
    graph = Graph("dcgan_digits", g)
    x, hidden = "z", len(GENERATOR) - 2
    for i in range(hidden + 1):
        geometry = DOUBLE if i else FIRST
        x = graph.conv_transpose(x, f"up.{i}", KERNEL, output=f"up.{i}.out", bias=False, **geometry)
        if i < hidden:
            x = graph.batch_norm(x, f"bn.{i}", BATCH_NORM_EPSILON, f"bn.{i}.out")
            x = graph.add("Relu", [x], f"relu.{i}.out")
    graph.add("Tanh", [x], "image")
    model = graph.model(
        {"z": ["batch", LATENT, 1, 1]},
        {"image": ["batch", 1, SIZE, SIZE]},
        "DCGAN generator of handwritten digits in -1..1; z: digit one-hot, then standard normal",
    )
    z = latent(np.random.default_rng(SEED + 2), np.arange(2 * DIGITS) % DIGITS)
    save(model, {"z": z}, {"image": np.asarray(generate(g, z)[0])})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2400)
    arguments = parser.parse_args()
    small, target = digits()
    images = enlarged(small)
    g = train(images, target, arguments.steps)
    report(g, images, target)
    export(g)


if __name__ == "__main__":
    main()
