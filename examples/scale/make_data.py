#!/usr/bin/env python3
"""Makes data to try the jobs of this folder on.

  python make_data.py FOLDER [--count N] [--broken N] [--seed S]

FOLDER gets images/ (N of several sizes; of the first few, half the bytes), mels.parquet (N
rows; of the first few, a number too many), and vocoder.onnx, a small untrained vocoder:
mel f32[N, 80, T] to audio f32[N, 1, 64 T].

Needs: pip install numpy onnx pillow pyarrow
"""
import argparse
import pathlib

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

BANDS = 80
SIZES = [(48, 64), (64, 64), (56, 40)]
FRAMES = [16, 24, 40]


def images(folder, count, broken, rng):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        height, width = SIZES[number % len(SIZES)]
        # Something smooth, with edges.
        y, x = np.mgrid[:height, :width] / 8 + rng.uniform(0, 9, [2, 1, 1])
        planes = [np.sin(x * a) + np.cos(y * b) + (x > y) for a, b in rng.uniform(0.2, 1.2, [3, 2])]
        pixels = (np.stack(planes, -1) * 50 + 100).clip(0, 255).astype(np.uint8)
        path = folder / f"image{number:05}.png"
        Image.fromarray(pixels).save(path)
        if number < broken:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def mels(path, count, broken, rng):
    frames = [FRAMES[number % len(FRAMES)] for number in range(count)]
    rows = [rng.standard_normal(BANDS * t).astype(np.float32) for t in frames]
    rows[:broken] = [np.append(row, np.float32(0)) for row in rows[:broken]]
    table = pa.table({"id": range(count), "frames": frames, "mel": pa.array(rows, pa.list_(pa.float32()))})
    pyarrow.parquet.write_table(table, path, row_group_size=max(count // 8, 1))


def vocoder(path, rng):
    nodes, tensors, value = [], [], "mel"
    for number, (channels, made, stride) in enumerate([(BANDS, 32, 8), (32, 16, 4), (16, 8, 2)]):
        weights = rng.standard_normal([channels, made, 2 * stride]) / np.sqrt(2 * channels)
        tensors.append(numpy_helper.from_array(weights.astype(np.float32), f"up{number}_w"))
        up = helper.make_node("ConvTranspose", [value, f"up{number}_w"], [f"up{number}"], f"up{number}",
                              strides=[stride], pads=[stride // 2] * 2)
        nodes += [up, helper.make_node("LeakyRelu", [f"up{number}"], [f"act{number}"], alpha=0.1)]
        value = f"act{number}"
    weights = rng.standard_normal([1, 8, 7]) / 8
    tensors.append(numpy_helper.from_array(weights.astype(np.float32), "last_w"))
    nodes.append(helper.make_node("Conv", [value, "last_w"], ["sum"], "last", pads=[3, 3]))
    nodes.append(helper.make_node("Tanh", ["sum"], ["audio"]))
    ports = [helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["N", BANDS, "T"]),
             helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["N", 1, "S"])]
    graph = helper.make_graph(nodes, "vocoder", ports[:1], ports[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--broken", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    images(options.folder / "images", options.count, options.broken, rng)
    mels(options.folder / "mels.parquet", options.count, options.broken, rng)
    vocoder(options.folder / "vocoder.onnx", rng)


if __name__ == "__main__":
    main()
