"""Builds the README's comparison picture: low-resolution input, bicubic, and what tconvc computed.

Reads the input that lies beside the model and the output that `tconvc run` wrote:

    tconvc run models/fsrcnn_x3.onnx --inputs models/fsrcnn_x3.npz --output out.npz
    python models/train/picture.py out.npz
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import photographs
from fsrcnn import picture_original
from onnx_graph import MODELS
from photographs import SCALE

GAP, CAPTION = 8, 26
INK, PAPER = (36, 41, 47), (255, 255, 255)
DEFAULT_PICTURE = MODELS.parent / "docs" / "images" / "super-resolution.png"


def to_image(planes: np.ndarray) -> Image.Image:
    """[3, H, W] in 0..1 as an 8-bit picture; values outside are clipped."""
    return Image.fromarray(np.round(planes.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def compose(panels: list[tuple[str, np.ndarray]]) -> Image.Image:
    """The panels side by side, each over its caption."""
    height, width = panels[0][1].shape[1:]
    size = (len(panels) * (width + GAP) - GAP, height + CAPTION)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    for index, (caption, planes) in enumerate(panels):
        left = index * (width + GAP)
        picture.paste(to_image(planes), (left, 0))
        middle = (left + width // 2, height + CAPTION // 2)
        draw.text(middle, caption, INK, font, anchor="mm")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("computed", type=Path, help="npz with the model's output `high`")
    parser.add_argument("--picture", type=Path, default=DEFAULT_PICTURE)
    arguments = parser.parse_args()

    with np.load(MODELS / "fsrcnn_x3.npz") as beside, np.load(arguments.computed) as computed:
        low, high = beside["low"][:, 0], computed["high"][:, 0]
    original = picture_original()
    if high.shape != original.shape:
        raise SystemExit(f"{arguments.computed}: high is {high.shape}, not {original.shape}")
    bicubic = photographs.enlarge(low)
    nearest = low.repeat(SCALE, 1).repeat(SCALE, 2)

    def caption(name: str, planes: np.ndarray) -> str:
        luma = (photographs.luma(p.clip(0, 1)) for p in (planes, original))
        return f"{name}, {photographs.psnr(*luma):.2f} dB"

    picture = compose(
        [
            (f"input, {low.shape[2]} x {low.shape[1]}", nearest),
            (caption("bicubic", bicubic), bicubic),
            (caption("tconvc", high), high),
        ]
    )
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    picture.save(arguments.picture, optimize=True)
    print(f"{arguments.picture}: {picture.width} x {picture.height}")


if __name__ == "__main__":
    main()
