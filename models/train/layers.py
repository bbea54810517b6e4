"""The layers of the three networks in JAX, with ONNX's meaning of every weight and attribute.

Tensors are NCHW. This file holds no parameters and no training; each network file keeps its own.
"""

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NCHW", "OIHW", "NCHW")
BATCH_NORM_EPSILON = 1e-5


def conv(x: jax.Array, weight: jax.Array, stride: int = 1, pad: int = 0) -> jax.Array:
    """Convolution; `weight` is [Cout, Cin, k, k], `pad` is the same on all four sides."""
    return lax.conv_general_dilated(
        x, weight, (stride, stride), [(pad, pad)] * 2, dimension_numbers=LAYOUT
    )


def conv_transpose(
    x: jax.Array, weight: jax.Array, stride: int, pad: int, output_padding: int = 0
) -> jax.Array:
    """ONNX ConvTranspose; `weight` is [Cin, Cout, k, k].

    Written as its definition: zeros between the inputs, then a convolution with the flipped kernel.
    """
    k = weight.shape[2]
    flipped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    border = (k - 1 - pad, k - 1 - pad + output_padding)
    return lax.conv_general_dilated(
        x,
        flipped,
        (1, 1),
        [border] * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=LAYOUT,
    )


def per_channel(v: jax.Array) -> jax.Array:
    """A vector of one value per channel, shaped to broadcast over NCHW."""
    return v[None, :, None, None]


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """ONNX PRelu with a slope of shape [C, 1, 1]."""
    return jnp.where(x < 0, slope * x, x)


def batch_statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel over the batch."""
    return x.mean((0, 2, 3)), x.var((0, 2, 3))


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array
) -> jax.Array:
    """ONNX BatchNormalization with the given statistics."""
    factor = scale * lax.rsqrt(var + BATCH_NORM_EPSILON)
    return x * per_channel(factor) + per_channel(bias - mean * factor)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """MaxPool with kernel 2 and stride 2."""
    window = (1, 1, 2, 2)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
