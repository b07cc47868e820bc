"""Runs of a minute killed at random points and resumed end in the files of runs never killed, tensor for tensor."""

import random
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from .. import prepared

COMMAND = Path(prepared.__file__).with_name("command.py")
KILLS = 10


def tensors(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def start(arguments, said):
    return prepared.start(COMMAND, said, ARGUMENTS=[*map(str, arguments)])


def finished(arguments, said):
    started = time.monotonic()
    prepared.finish(start(arguments, said), said)
    print(f"{arguments[0]}: {time.monotonic() - started:.0f} s")  # shown with -rA: a minute and more is wanted


def killed(arguments, saved, rng, said):
    """Start it again and again and kill it: somewhere from its start on, or soon after it has saved something new."""
    for number in range(KILLS):
        process = start(arguments, said)
        before, until = saved(), time.monotonic() + 240
        while number % 2 and saved() == before and process.is_alive() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1.5 if number % 2 else 5))
        assert process.is_alive(), f"it ended by itself before it was killed ten times: {said.read_text()[-1000:]}"
        process.kill()
        process.join()


def stamp(path):
    return path.stat().st_mtime_ns if path.exists() else None


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills") / "whole"
    finished(capture_to(folder), folder.with_name("said"))
    return folder


def capture_to(folder):
    return ["capture", "--out", folder, "--site", "double.1.img", "double.1.txt", "--shard-tokens", 30_000,
            "--prompts", Path(__file__).with_name("captions.txt"), "--pictures", 20]  # fmt: skip


@pytest.mark.long
def test_captures(shards, tmp_path):
    whole, part, said = shards, tmp_path / "part", tmp_path / "said"
    killed(capture_to(part), lambda: stamp(part / "manifest.json"), random.Random(0), said)
    finished(capture_to(part), said)
    files = sorted(path.name for path in whole.iterdir())
    assert len(files) > 6 and files == sorted(path.name for path in part.iterdir())
    assert all((whole / name).read_bytes() == (part / name).read_bytes() for name in files)


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        ["train-sae", "--sae.features", 1024, "--sae.tokens", 3_000_000, "--sae.batch", 512, "--sae.buffer", 0.05],
        ["build-itda", "--itda.atoms", 6000, "--itda.tokens", 200_000, "--itda.per-picture", 400,
         "--itda.threshold", 0.25, "--itda.k", 12, "--itda.patience", 1_000_000],
    ],
    ids=["training", "building"],
)  # fmt: skip
def test_dictionaries(shards, tmp_path, options):
    run = [*options, "--shards", shards, "--checkpoint-seconds", 4, "--held-out", 0]
    whole, part, said = (tmp_path / name for name in ("whole.safetensors", "part.safetensors", "said"))
    finished([*run, "--out", whole], said)
    again = [*run, "--out", part, "--resume"]
    killed(again, lambda: stamp(tmp_path / "part.checkpoint"), random.Random(1), said)
    finished(again, said)
    expected, found = tensors(whole), tensors(part)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
