"""Atlases and questions that somebody made who means ill, or whose disk failed."""

import shutil
import sqlite3
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from fluxtionary.atlas import AtlasWriter
from fluxtionary.browser.answers import QUESTIONS

from ..atlas.atlases import build, header

SECRET = "years of work"
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def hostile(root: Path) -> Path:
    """A folder of atlases, a good one among them; a secret lies beside it."""
    for name in ("shapes", "markup", "damaged", "pictures", "links", "values", MARKUP.replace("/", "")):
        build(root / name)
    (root.parent / "secret.txt").write_text(SECRET)
    with AtlasWriter.annotate(root / "markup") as writer:
        writer.set_label(2, MARKUP, "'; DROP TABLE features; --")
    data = bytearray((root / "damaged" / "atlas.sqlite").read_bytes())
    data[4096:20000:7] = bytes(len(data[4096:20000:7]))
    (root / "damaged" / "atlas.sqlite").write_bytes(data)
    _pictures(root / "pictures" / "pictures" / "000")
    shutil.rmtree(root / "links" / "pictures")
    (root / "links" / "pictures").symlink_to(root.parent)
    connection = sqlite3.connect(root / "values" / "atlas.sqlite")
    connection.execute("UPDATE features SET density = 9e999, label = CAST(x'ff' AS TEXT) WHERE number = 0")
    connection.execute("UPDATE features SET companions = '[[0, ' || char(0) WHERE number = 20")
    connection.execute("UPDATE pictures SET prompt = zeroblob(200000)")
    connection.commit()
    connection.close()
    with AtlasWriter.begin(root / "huge", header(size=[8192, 8192])) as writer:
        writer.finish([], {})
    return root


def _pictures(folder: Path) -> None:
    """Other kinds of pictures, none at all, and one that claims to be of 16,383 pixels a side."""
    for number, kind in enumerate(("GIF", "PNG")):
        Image.new("RGB", (48, 32)).save(folder / f"00000{number}.webp", kind)
    (folder / "000002.webp").write_bytes(MARKUP.encode() * 100)
    data = (folder / "000003.webp").read_bytes()
    (folder / "000003.webp").write_bytes(data[:26] + b"\xff\x3f\xff\x3f" + data[30:])


WORDS = {
    "atlas": ("shapes", "markup", "damaged", "pictures", "links", "values", "huge", "none"),
    "view": ("x", "../x"),
    "text": ("red", "blue circle", "nothing of this", MARKUP, '"NEAR(" OR a*', "a" * 1500),
    "order": ("number", "density", "peak", "sigma", "interp", "relevance", "coactive", "pictures", "score; --"),
    **dict.fromkeys(("feature", "like", "picture"), ("0", "1", "2", "4", "20", "39", "40")),
    **dict.fromkeys(("offset", "limit", "count", "first", "last"), ("0", "1", "3", "50", "200", "201")),
    **dict.fromkeys(("top", "left", "bottom", "right"), ("0", "1", "2", "8")),
}
ODD = (
    *(
        "",
        "-1",
        "1e9",
        "NaN",
        "9" * 400,
        "0x10",
        "1.5",
        "true",
        "None",
        "[]",
        "{}",
        "\0",
        "a\0b",
        "\r\nSet-Cookie: a=b",
    ),
    *("../../secret.txt", "..\\..\\secret.txt", "/etc/passwd", "file:///etc/passwd", "C:\\Windows", "%2e%2e%2f", "%00"),
    *(MARKUP, "' OR 1=1 --", "${jndi:ldap://x}", "{{7*7}}", "\u202e\ufeff\U0001f600", "é" * 500, "٣", "\x7f"),
)


def question(chance):
    """An address that may be anybody's."""
    name = chance.choice((*QUESTIONS, "features", "feature", "picture", "map", "", "../view", "view/../installed", "x"))
    words = []
    for key, values in WORDS.items():
        if chance.random() < (0.9 if key in ("atlas", "feature", "picture") else 0.25):
            words.append((key, chance.choice(values) if chance.random() < 0.8 else chance.choice(ODD)))
    chance.shuffle(words)
    if chance.random() < 0.1:
        words.append((chance.choice(ODD), chance.choice(ODD)))
    address = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in words)
    if chance.random() < 0.1:  # percent signs that are no letters of any kind
        address += chance.choice(
            ("&text=%ff%fe", "&atlas=%c0%ae%c0%ae", "&feature=%", "&=&&&", "&text=%ed%a0%80", "#x")
        )
    return f"/fluxtionary/{quote(name, safe='/.')}?{address}"
