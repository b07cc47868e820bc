import json
import random
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxtionary.residual.shard_manifest import MANIFEST
from fluxtionary.residual.shards import ShardError, Shards, ShardWriter

from .captures import ABOUT, IMG, capture


@pytest.fixture
def whole(tmp_path):
    capture(tmp_path / "whole")
    return tmp_path / "whole"


def first_file(manifest, site="double.1.img"):
    return manifest["shards"][0]["files"][site]


MANIFESTS = [
    (lambda m: m.update(format="fluxtionary"), "format 'fluxtionary'"),
    (lambda m: m.update(schema=2), "schema 1, found schema 2"),
    (lambda m: m.update(schema=True), "schema True"),
    (lambda m: m.update(schema="1"), "schema '1'"),
    (lambda m: m.pop("sites"), "list of sites"),
    (lambda m: m.update(sites=["double.1.img", "nowhere"]), "no site"),
    (lambda m: m.update(sites=[" double.1.img", "single.0.txt"]), "as Fluxtionary writes"),
    (lambda m: m.update(sites=[["double.1.img"]]), "list of sites"),
    (lambda m: m.update(sites={}), "list of sites"),
    (lambda m: m["d_model"].update({"double.1.img": -1}), "d_model"),
    (lambda m: m["d_model"].update({"double.1.img": 6.0}), "d_model"),
    (lambda m: m["d_model"].update({"double.1.img": 10**30}), r"\(48, 10{30}\)"),
    (lambda m: m.update(d_model=[]), "d_model"),
    (lambda m: m.update(dtype="float64"), "dtype"),
    (lambda m: m.update(dtype=["float32"]), "dtype"),
    (lambda m: m.update(dtype="float16"), r"x of type F16, shape \(48, 6\), found type BF16, shape \(48, 6\)"),
    (lambda m: m.update(model=None), "model, a JSON object"),
    (lambda m: m.update(header=[]), "header, a JSON object"),
    (lambda m: m.update(prompts="abc"), "prompts"),
    (lambda m: m["prompts"].append(3), "prompts"),
    (lambda m: m["seeds"].append(3), "a seed for each prompt"),
    (lambda m: m.update(seeds=[True] * 14), "seeds"),
    (lambda m: m.update(grid=[2]), "grid"),
    (lambda m: m.update(grid=2), "grid"),
    (lambda m: m.update(batches=0), "batches"),
    (lambda m: m.update(batches=6), "none after 6"),
    (lambda m: m.update(complete=False), "complete"),
    (lambda m: m.update(complete=1), "complete"),
    (lambda m: m.update(shards={}), "shards, a list"),
    (lambda m: m["shards"].pop(), "complete with 6 of 7"),
    (lambda m: m["shards"].pop(0), r"shard 0 with batches \[0, end\]"),
    (lambda m: m["shards"].append([]), "shards, a list"),
    (lambda m: m["shards"][0].update(batches=[0, 0]), "shard 0 with batches"),
    (lambda m: m["shards"][0].update(batches=[0, "3"]), "shard 0 with batches"),
    (lambda m: m["shards"][0]["files"].pop("single.0.txt"), "a file for each site"),
    (lambda m: m["shards"][0].update(files=[]), "a file for each site"),
    (lambda m: m["shards"][0]["files"].update({"single.0.txt": 3}), "a file, a JSON object"),
    (lambda m: first_file(m).update(file="../other/double.1.img-00000.safetensors"), "inside the folder"),
    (lambda m: first_file(m).update(file="/etc/x.safetensors"), "inside the folder"),
    (lambda m: first_file(m).update(file="..\\x.safetensors"), "inside the folder"),
    (lambda m: first_file(m).update(file="C:x.safetensors"), "inside the folder"),
    (lambda m: first_file(m).update(file="x.safetensors\n"), "inside the folder"),
    (lambda m: first_file(m).update(file=".safetensors"), "inside the folder"),
    (lambda m: first_file(m).update(file="x.pt"), "inside the folder"),
    (lambda m: first_file(m).update(file=3), "inside the folder"),
    (lambda m: first_file(m).update(file="nothing.safetensors"), "no such file"),
    (lambda m: first_file(m).update(file="double.1.img-00001.safetensors"), "every file once"),
    (lambda m: first_file(m).update(tokens=47), "tokens"),
    (lambda m: first_file(m).update(tokens=47, batch_tokens=[16, 16, 15]), r"\(47,\)"),
    (lambda m: first_file(m).update(batch_tokens=[16, 32]), "3 numbers"),
    (lambda m: first_file(m).update(batch_tokens=[-16, 32, 32]), "3 numbers"),
    (lambda m: first_file(m).update(batch_tokens=None), "3 numbers"),
    (lambda m: first_file(m).update(sha256="0"), "sha256"),
]


@pytest.mark.parametrize(("change", "words"), MANIFESTS)
def test_manifests_that_lie_are_refused(whole, change, words):
    manifest = json.loads((whole / MANIFEST).read_text())
    change(manifest)
    (whole / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match=words) as caught:
        Shards(whole)
    assert str(whole) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSON"),
        ("[1]", "a JSON object"),
        ("[" * 100_000, "JSON"),
        ('{"format": NaN}', "NaN is no JSON"),
        ("\udcff", "JSON"),
        ('{"format": ' + "1" * 5000 + "}", "JSON"),
    ],
)
def test_other_manifests_are_refused(whole, text, words):
    (whole / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ShardError, match=words):
        Shards(whole)
    with pytest.raises(ShardError, match=words):
        ShardWriter(whole, **ABOUT)


def test_manifests_too_large_are_not_parsed(whole):
    with (whole / MANIFEST).open("ab") as file:
        file.truncate(2**27 + 1)
    with pytest.raises(ShardError, match="at most 134217728 bytes"):
        Shards(whole)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(ShardError, match="nowhere.*no such folder"):
        Shards(tmp_path / "nowhere")
    with pytest.raises(ShardError, match=r"with a manifest.json, found none"):
        Shards(tmp_path)


NAME = "double.1.img-00001.safetensors"


def test_links_out_of_the_folder_are_refused(tmp_path, whole):
    (whole / NAME).rename(tmp_path / NAME)
    (whole / NAME).symlink_to(tmp_path / NAME)
    with pytest.raises(ShardError, match="found a link"):
        Shards(whole)


TENSORS = [
    (lambda t: t.pop("sigma"), "tensors picture, position, sigma, x, found picture, position, x;"),
    (lambda t: t.update(extra=torch.zeros(2)), "found extra, picture"),
    (lambda t: t.update(x=t["x"].float()), "F32"),
    (lambda t: t.update(x=t["x"][:, :5].contiguous()), r"\(48, 5\)"),
    (lambda t: t.update(position=t["position"].long()), "I64"),
    (
        lambda t: t.update({name: tensor[:40].contiguous() for name, tensor in t.items()}),
        r"found type I64, shape \(40,\)",
    ),
]


@pytest.mark.parametrize(("change", "words"), TENSORS)
def test_files_that_are_not_what_the_manifest_says_are_refused(whole, change, words):
    tensors = load_file(whole / NAME)
    change(tensors)
    save_file(tensors, whole / NAME)
    with pytest.raises(ShardError, match=words) as caught:
        Shards(whole)
    assert NAME in str(caught.value)


def test_pictures_that_are_not_there_are_refused(whole):
    tensors = {name: tensor.clone() for name, tensor in load_file(whole / NAME).items()}
    tensors["picture"][3] = 14
    save_file(tensors, whole / NAME)
    with pytest.raises(ShardError, match=rf"{NAME}.*pictures 0 to 13"):
        Shards(whole).open(IMG, 1)


def test_damage_anywhere_is_found(whole):
    """Truncations are errors when a folder is opened; flipped bytes are named by `verify` at the latest."""
    shards, data = Shards(whole), (whole / NAME).read_bytes()
    rng = random.Random(0)
    for end in [0, 4, 8, 20, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))]:
        (whole / NAME).write_bytes(data[:end])
        with pytest.raises(ShardError, match=NAME):
            Shards(whole)
        with pytest.raises(ShardError, match=NAME):
            shards.batch(4)
        shards.batch(0)
    for _ in range(100):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (whole / NAME).write_bytes(changed)
        with pytest.raises(ShardError, match=NAME):
            Shards(whole).verify()
    (whole / NAME).write_bytes(struct.pack("<Q", 2**17) + bytes(2**18))
    with pytest.raises(ShardError, match="a header of at most 65536 bytes"):
        Shards(whole)


def test_verify_names_every_damaged_file(whole):
    shards = Shards(whole)
    for name in (NAME, "single.0.txt-00002.safetensors"):
        data = (whole / name).read_bytes()
        (whole / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ShardError, match=r"double\.1\.img-00001\.safetensors, single\.0\.txt-00002"):
        shards.verify()
