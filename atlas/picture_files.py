"""Pictures of an atlas: WebP files found by their number alone."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .database import is_plain
from .error import AtlasError, need

FOLDER = "pictures"
PICTURES = 10**7
"""Picture numbers lie below this."""
SIZE_LIMIT = 2**24
"""Largest file, in bytes, that is read."""
QUALITY = 90


def picture_path(folder: Path, number: int) -> Path:
    """`pictures/NNN/NNNNNN.webp`: a thousand pictures to a folder."""
    return folder / FOLDER / f"{number // 1000:03d}" / f"{number:06d}.webp"


def stored(folder: Path) -> Iterator[tuple[Path, int]]:
    """Files of pictures and their numbers. Raises `AtlasError` for links among the folders: they may lead anywhere."""
    pictures = folder / FOLDER
    if pictures.is_symlink() or pictures.exists():
        _check_folder(pictures)
        for part in pictures.iterdir():
            _check_folder(part)
            for path in part.glob("*.webp"):
                if path.stem.isdecimal() and path == picture_path(folder, int(path.stem)):
                    yield path, int(path.stem)


def _check_folder(path: Path) -> None:
    good = path.is_dir() and not path.is_symlink()
    need(good, path, "a folder of pictures", "a link, or none", "remove it, or restore it from a copy")


def encode(path: Path, pixels: np.ndarray, size: tuple[int, int]) -> bytes:
    """Pixels uint8 `[h, w, 3]` as WebP."""
    pixels = np.asarray(pixels)
    good = pixels.dtype == np.uint8 and pixels.shape == (*size, 3)
    found, remedy = f"{pixels.dtype} {list(pixels.shape)}", "give pictures of the size that the header says"
    need(good, path, f"uint8 [{size[0]}, {size[1]}, 3]", found, remedy)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=QUALITY)
    return out.getvalue()


def read(folder: Path, number: int, size: tuple[int, int]) -> bytes:
    """The file of a picture, as it lies there, if it is a plain WebP of this size, `[h, w]`.

    Links are not followed, and nothing is decoded. Raises `AtlasError`.
    """
    path = picture_path(folder, number)
    for part in (path.parent.parent, path.parent):
        _check_folder(part)
    need(is_plain(path), path, "a picture", "a link, or none")
    length = path.stat().st_size
    need(length <= SIZE_LIMIT, path, f"a picture of at most {SIZE_LIMIT} bytes", f"one of {length}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AtlasError(path, "a readable picture", error.strerror or str(error)) from error
    found = webp_size(data)
    need(found == size, path, f"a plain WebP picture of {size[1]}x{size[0]}", found and f"{found[1]}x{found[0]}")
    return data


def decode(path: Path, data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Pixels uint8 `[h, w, 3]` of a file that `read` gave."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            warnings.simplefilter("ignore")
            need(image.size == size[::-1], path, f"a picture of {size[1]}x{size[0]}", image.size)
            return np.asarray(image.convert("RGB"))
    except AtlasError:
        raise
    except Exception as error:  # Pillow raises what it likes for bytes that are no picture
        raise AtlasError(path, "a WebP picture", f"a damaged one ({type(error).__name__})") from error


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Height and width that the bytes of a plain WebP claim (RFC 9649, sections 2.5 and 2.6); None for others.

    The extended kind, with animations and metadata, is none of ours.
    """
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    if data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return height, width
    if data[12:16] == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    return None
