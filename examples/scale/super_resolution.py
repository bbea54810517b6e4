#!/usr/bin/env python3
"""Makes every image of a folder as large as a network does, with Ray Data.

  python super_resolution.py MODEL IMAGES RESULTS [--workers N]

MODEL takes `low` and gives `high`, f32[N, 1, H, W] of 0 to 1; the three planes of an
image are a batch. Images are written to RESULTS under their own names, each whole or not at
all; those that are there are not made again. What fails is listed in
RESULTS/failures.csv with its reason.

Needs: pip install tconvc[ray] pillow
"""
import argparse
import csv
import pathlib

import numpy as np
import ray
import ray.data
from PIL import Image

import tconvc.ray


def read(row):
    """The planes of an image, or why there are none."""
    try:
        with Image.open(row["path"]) as image:
            planes = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)[:, None] / 255
    except (OSError, ValueError) as error:
        return {"path": row["path"], "low": np.zeros([0] * 4, np.float32), "error": str(error)}
    return {"path": row["path"], "low": planes, "error": ""}


def write(row, results):
    """Writes an image of its planes."""
    if not row["error"]:
        pixels = (row["high"][:, 0].transpose(1, 2, 0).clip(0, 1) * 255 + 0.5).astype(np.uint8)
        done = results / (pathlib.Path(row["path"]).stem + ".png")
        draft = done.with_suffix(".draft")
        Image.fromarray(pixels).save(draft, format="png")
        draft.rename(done)
    return {"path": row["path"], "error": row["error"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("images", type=pathlib.Path)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--workers", type=int, help="one a processor by default")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    done = {path.stem for path in options.results.glob("*.png")}
    paths = sorted(path for path in options.images.iterdir() if path.is_file() and path.stem not in done)
    print(f"{len(done)} images are there, {len(paths)} are left")
    if not paths:
        return
    results = options.results.absolute()
    planes = ray.data.from_items([{"path": str(path.absolute())} for path in paths]).map(read)
    made = tconvc.ray.predict(planes, options.model, concurrency=options.workers)
    told = made.map(write, fn_args=[results]).take_all()
    failed = sorted((row["path"], row["error"]) for row in told if row["error"])
    with open(options.results / "failures.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "error"), *failed])
    print(f"{len(told) - len(failed)} images made, {len(failed)} failed")


if __name__ == "__main__":
    main()
