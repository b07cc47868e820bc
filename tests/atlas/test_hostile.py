"""An atlas that somebody else made is data: an `AtlasError` or a plain answer, never code, another file, or a hang."""

import contextlib
import os
import random
import shutil
import sqlite3
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fluxtionary.atlas import Atlas, AtlasError, AtlasWriter, reader
from fluxtionary.atlas.picture_files import picture_path
from fluxtionary.atlas.rows import FEATURE_COLUMNS

from .atlases import build, header

ORDERS = (*reader.ORDERS, "interp")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return build(tmp_path_factory.mktemp("good") / "atlas")


@pytest.fixture
def folder(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "atlas"))


def asked(folder):
    """Everything that can be asked of an atlas; how many of the questions were refused."""
    refused = 0
    try:
        atlas = Atlas.open(folder)
    except AtlasError:
        return 1000
    with atlas:
        questions = [atlas.count, atlas.pictures, atlas.digest]
        questions += [lambda order=order: atlas.features(order) for order in ORDERS]
        questions += [lambda text=text: atlas.search(text) for text in ("red", "blue square", "all re", "nothing red")]
        for number in (0, 1, 2, 20):
            questions += [lambda n=number: atlas.feature(n), lambda n=number: atlas.examples(n)]
            questions += [lambda n=number: atlas.heat_map(n, 2)]
        for number in (0, 1, 4):
            questions += [
                lambda ask=ask, n=number: ask(n) for ask in (atlas.picture, atlas.pixels, atlas.maps, atlas.webp)
            ]
        for question in questions:
            try:
                question()
            except AtlasError as error:
                assert str(folder) in str(error)
                refused += 1
    return refused


def changed(folder, *commands):
    connection = sqlite3.connect(folder / "atlas.sqlite", isolation_level=None)
    connection.execute("PRAGMA trusted_schema = ON")
    for command in commands:
        connection.execute(command)
    connection.close()


def test_a_good_atlas_answers_all(folder):
    assert asked(folder) == 0


@pytest.mark.parametrize(
    "commands",
    [
        ["CREATE TRIGGER t AFTER UPDATE ON features BEGIN DELETE FROM pictures; END"],
        ["CREATE VIEW v AS SELECT 1"],
        ["DROP TABLE scores", "CREATE VIEW scores AS SELECT 1 AS feature, 'interp' AS name, 1 AS value"],
        ["ALTER TABLE features ADD COLUMN more AS (zeroblob(1000000000))"],
        ["CREATE INDEX i ON features (lower(label))"],
        ["CREATE INDEX i ON features (density)"],
        ["CREATE TABLE more (x)"],
        ["DROP TABLE captions"],
        ["DROP TABLE captions", "CREATE TABLE captions (prompt)"],
        ["DROP TABLE texts", "CREATE VIRTUAL TABLE texts USING fts5(label, explanation)"],
        ["DROP TABLE scores", "CREATE TABLE scores (feature, name, value CHECK (randomblob(9)), low, high, n)"],
        ["PRAGMA application_id = 1"],
        ["PRAGMA user_version = 2"],
        ["PRAGMA journal_mode = WAL"],
        ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = 'CREATE TABLE (x,' WHERE name = 'scores'"],
        ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET rootpage = 2 WHERE name = 'scores'"],
        ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET type = 'view' WHERE name = 'texts_data'"],
        ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET name = 'x' WHERE name = 'texts_config'"],
    ],
    ids=lambda commands: commands[-1][:60],
)  # fmt: skip
def test_other_tables_are_refused_by_readers_and_writers(folder, commands):
    try:
        changed(folder, *commands)
    except sqlite3.Error as error:
        pytest.skip(f"this SQLite does not make such a file: {error}")
    assert asked(folder)
    if commands[-1].endswith("rootpage = 2 WHERE name = 'scores'"):
        return  # the tables say what they should; what is in them does not
    for work in (AtlasWriter.annotate, lambda folder: AtlasWriter.begin(folder, header())):
        with pytest.raises(AtlasError):
            work(folder)


COLUMNS = {
    "about": ["name", "value"],
    "pictures": ["number", "prompt", "seed", "maps"],
    "features": [*FEATURE_COLUMNS],
    "examples": ["feature", "kind", "rank", "picture", "peak"],
    "scores": ["feature", "name", "value", "low", "high", "n"],
}  # fmt: skip
VALUES = (
    *("NULL", "-1", "9223372036854775807", "1e300", "9e999", "'x'", "x'ff00'", "CAST(x'ff' AS TEXT)", "0", "1.5"),
    *("zeroblob(3000000)", "printf('%2000000d', 1)", "'[1, 2'", "'[NaN]'", "replace(printf('%9999d', 0), ' ', '[')"),
    "'[]'",
)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("table", COLUMNS)
def test_values_of_the_wrong_kind(folder, table, stride):
    good = (folder / "atlas.sqlite").read_bytes()
    which = "" if table in ("examples", "scores") else f"WHERE rowid = (SELECT min(rowid) FROM {table})"
    refused = 0
    for place, column in enumerate(COLUMNS[table]):
        for value in VALUES[place % stride :: stride]:
            (folder / "atlas.sqlite").write_bytes(good)
            try:
                changed(folder, f"UPDATE {table} SET {column} = {value} {which}")
            except sqlite3.IntegrityError:
                continue  # SQLite itself keeps such a value out
            refused += asked(folder) > 0
    assert refused > 2


def fuzzed(folder, rounds, seed):
    chance = random.Random(seed)
    good = (folder / "atlas.sqlite").read_bytes()
    refused = 0
    for _ in range(rounds):
        data = bytearray(good)
        page = 4096 * chance.randrange(len(data) // 4096)
        for _ in range(chance.choice((1, 1, 4, 64))):
            # most often the head of a page, where its cells are found
            place = (
                page + min(int(chance.expovariate(1 / 40)), 4095)
                if chance.random() < 0.7
                else chance.randrange(len(data))
            )
            data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        (folder / "atlas.sqlite").write_bytes(data)
        refused += asked(folder) > 0
    return refused


def test_damaged_bytes(folder, monkeypatch):
    monkeypatch.setattr(reader, "SECONDS", 1.0)
    assert fuzzed(folder, 100, 1) > 30


@pytest.mark.long
def test_many_damaged_bytes(folder, monkeypatch):
    monkeypatch.setattr(reader, "SECONDS", 1.0)
    assert fuzzed(folder, 2000, 2) > 600


def endless(folder):
    """Make the tree of pictures one in which every page leads to the next one 400 times, 8 pages deep."""
    path = folder / "atlas.sqlite"
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'pictures'").fetchone()[0]
    connection.close()
    data = bytearray(path.read_bytes())
    size, pages = int.from_bytes(data[16:18], "big"), int.from_bytes(data[28:32], "big")
    leaf = bytes(data[(root - 1) * size : root * size])

    def interior(child):
        cells, start, page = 400, size - 400 * 6, bytearray(size)
        page[:12] = struct.pack(">BHHHBI", 5, 0, cells, start, 0, child)
        for cell in range(cells):
            page[12 + 2 * cell : 14 + 2 * cell] = struct.pack(">H", start + 6 * cell)
            page[start + 6 * cell : start + 6 * cell + 6] = struct.pack(">IBB", child, 0x81, cell % 100)
        return page

    more = [interior(pages + 2 + level) for level in range(7)]
    data[(root - 1) * size : root * size] = interior(pages + 1)
    data += b"".join([*more, leaf])
    data[28:32] = (pages + 8).to_bytes(4, "big")
    path.write_bytes(data)


def test_a_tree_without_an_end_is_given_up(folder, monkeypatch):
    endless(folder)
    monkeypatch.setattr(reader, "SECONDS", 0.3)
    start = time.perf_counter()
    with Atlas.open(folder) as atlas, pytest.raises(AtlasError, match="an answer within seconds"):
        atlas.pictures()
    assert time.perf_counter() - start < 5


def test_a_page_that_leads_to_itself(folder):
    endless(folder)
    data = bytearray((folder / "atlas.sqlite").read_bytes())
    size = int.from_bytes(data[16:18], "big")
    data[-size:] = data[-2 * size : -size]
    (folder / "atlas.sqlite").write_bytes(data)
    with Atlas.open(folder) as atlas, pytest.raises(AtlasError):
        atlas.pictures()


@pytest.mark.parametrize("name", ["atlas.sqlite", "pictures", "pictures/000", "pictures/000/000000.webp"])
def test_links_are_not_followed(folder, good, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(good / name)
    with pytest.raises(AtlasError, match="a link"), Atlas.open(folder) as atlas:
        atlas.pixels(0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", ["atlas.sqlite", "pictures/000/000000.webp"])
def test_a_pipe_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(AtlasError, match="no(ne| plain file)"), Atlas.open(folder) as atlas:
        atlas.pixels(0)


def test_a_writer_touches_nothing_outside(folder, tmp_path):
    outside = tmp_path / "outside"
    (outside / "000").mkdir(parents=True)
    for name in ("000/000009.webp", "7.npz", "thesis.txt"):
        (outside / name).write_text("years of work")
    (folder / "state").symlink_to(outside)
    with pytest.raises(AtlasError, match="a link"):
        AtlasWriter.annotate(folder)
    (folder / "state").unlink()
    (folder / "state").mkdir()
    (folder / "pictures" / "001").symlink_to(outside)
    with pytest.raises(AtlasError, match="a link"):
        AtlasWriter.annotate(folder)
    shutil.rmtree(folder / "pictures")
    (folder / "pictures").symlink_to(outside)
    with pytest.raises(AtlasError, match="a link"):
        AtlasWriter.annotate(folder)
    AtlasWriter.begin(folder, header(), overwrite=True).close()
    assert {path.read_text() for path in outside.rglob("*") if path.is_file()} == {"years of work"}
    assert len([*outside.rglob("*.*")]) == 3


def test_a_picture_is_never_written_through_a_link(tmp_path):
    folder = build(tmp_path / "atlas", finish=False, upto=2)
    (tmp_path / "thesis.txt").write_text("years of work")
    picture_path(folder, 2).symlink_to(tmp_path / "thesis.txt")
    build(folder)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_journal_that_names_another_file_is_refused(folder, tmp_path):
    """SQLite removes the file that such a journal names."""
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    name = str(victim).encode()
    tail = struct.pack(">I", 1) + name + struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    head = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 0, 0, 1, 512, 4096)
    (folder / "atlas.sqlite-journal").write_bytes(head.ljust(512, b"\0") + tail)
    with pytest.raises(AtlasError, match="expected a journal of this atlas alone"):
        AtlasWriter.annotate(folder)
    asked(folder)
    assert victim.read_text() == "years of work"


def test_what_a_killed_writer_leaves_is_put_in_order_by_the_next(folder, tmp_path):
    connection = sqlite3.connect(folder / "atlas.sqlite", isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the transaction ends
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE features SET mean = 77, label = printf('%900d', number)")
    connection.execute("UPDATE pictures SET prompt = printf('%90000d', number)")
    left = Path(shutil.copytree(folder, tmp_path / "left"))
    connection.close()
    assert (left / "atlas.sqlite-journal").stat().st_size > 512
    with pytest.raises(AtlasError, match="run the command that was interrupted again"):
        Atlas.open(left).feature(0)
    AtlasWriter.annotate(left).close()
    with Atlas.open(left) as atlas:
        assert atlas.feature(0).mean == 0.5 and asked(left) == 0


def riff(kind, body):
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def saved(path, kind, size=(48, 32), **options):
    Image.fromarray(np.full((size[1], size[0], 3), 99, np.uint8)).save(path, kind, **options)


def pictures(path):
    """Files that are no plain WebP of 48x32."""
    good = path.read_bytes()
    yield b""
    yield b"x" * 100
    yield good[:60]
    yield good[:26] + struct.pack("<HH", 0x3FFF, 0x3FFF) + good[30:]
    yield riff(b"VP8L", b"\x2f" + struct.pack("<I", 0x0FFFFFFF) + bytes(40))
    yield riff(b"VP8L", b"\x2f" + struct.pack("<I", 47 | 31 << 14) + os.urandom(400))  # the size is right
    yield riff(b"VP8X", bytes(4) + b"\xfe\x3f\0\xfe\x3f\0" + bytes(40))
    yield bytes(2**24 + 1)
    for kind in ("PNG", "GIF", "BMP", "TIFF", "JPEG"):
        saved(path, kind)
        yield path.read_bytes()
    saved(path, "WEBP", (64, 64))
    yield path.read_bytes()
    frames = [Image.new("RGB", (48, 32), (n, 0, 0)) for n in range(0, 250, 50)]
    frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:])
    yield path.read_bytes()
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n" + bytes(100)


def test_pictures_that_are_none(folder):
    path = picture_path(folder, 0)
    for number, data in enumerate(pictures(path)):
        path.write_bytes(data)
        with Atlas.open(folder) as atlas, pytest.raises(AtlasError):
            atlas.pixels(0)
            pytest.fail(f"{number} was read")


def test_damaged_pictures(folder):
    path, chance = picture_path(folder, 0), random.Random(0)
    good = path.read_bytes()
    with Atlas.open(folder) as atlas:
        for _ in range(200):
            data = bytearray(good)
            for _ in range(chance.choice((1, 4, 16))):
                data[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(data)
            with contextlib.suppress(AtlasError):
                assert atlas.pixels(0).shape == (32, 48, 3)


def test_a_lossless_picture_will_do(folder):
    saved(picture_path(folder, 0), "WEBP", lossless=True)
    with Atlas.open(folder) as atlas:
        assert (atlas.pixels(0) == 99).all()
