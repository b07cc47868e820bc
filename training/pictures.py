"""Pictures that someone has in a folder, as a model is shown them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .sampling import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def listed_pictures(folder: Path, count: int) -> list[Path]:
    """The folder's pictures in order of their names; raises `ModelError` where there are not `count` of them."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS) if folder.is_dir() else []
    if len(found) != count:
        raise ModelError(
            f"{folder}: expected a folder with one picture for each of {count} prompts, found {len(found)}"
        )
    return found


def digest_of(paths: Sequence[Path]) -> str:
    """SHA-256 of the files' contents, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def opened(path: Path) -> Image:
    """A picture in RGB, upright; raises `ModelError` for a file that is none."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255 instead of scaling
                picture = picture.point(lambda value: value / 257, "F")
            return picture.convert("L").convert("RGB") if picture.mode == "F" else picture.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ModelError(f"{path}: expected a picture, found one that cannot be read: {error}") from error
