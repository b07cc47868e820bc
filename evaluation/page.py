"""Pages of HTML that need no other file: Jinja templates that lie beside this module, and pictures inside them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image


def page(template: str, /, **words: Any) -> str:
    """A template filled in; text is escaped, and a word that is missing raises `jinja2.UndefinedError`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(words)


def picture_uri(picture: np.ndarray | Image.Image) -> str:
    """A picture, uint8 `[h, w, 3]` or an image, as a PNG that stands in the page itself."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, "PNG")
    return data_uri(file.getvalue())


def data_uri(data: bytes, kind: str = "png") -> str:
    """A picture file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
