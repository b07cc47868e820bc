"""Runs of a minute killed at random points and resumed end in the files of runs never killed, tensor for tensor."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

COMMAND = str(Path(sys.executable).with_name("fluxtionary"))
KILLS = 10


def tensors(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def finished(arguments):
    started = time.monotonic()
    subprocess.run([COMMAND, *map(str, arguments)], check=True, capture_output=True)
    print(f"{arguments[0]}: {time.monotonic() - started:.0f} s")  # shown with -rA: a minute and more is wanted


def killed(arguments, saved, rng):
    """Start it again and again and kill it: somewhere from its start on, or soon after it has saved something new."""
    for number in range(KILLS):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([COMMAND, *map(str, arguments)], **quiet)
        before, until = saved(), time.monotonic() + 240
        while number % 2 and saved() == before and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1.5 if number % 2 else 15))
        assert process.poll() is None, "it ended by itself before it was killed ten times: it is too short"
        process.kill()
        process.wait()


def stamp(path):
    return path.stat().st_mtime_ns if path.exists() else None


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills") / "whole"
    finished(capture_to(folder))
    return folder


def capture_to(folder):
    return ["capture", "--out", folder, "--site", "double.1.img", "double.1.txt", "--shard-tokens", 30_000,
            "--prompts", Path(__file__).with_name("captions.txt"), "--pictures", 20]  # fmt: skip


@pytest.mark.long
def test_captures(shards, tmp_path):
    whole, part = shards, tmp_path / "part"
    killed(capture_to(part), lambda: stamp(part / "manifest.json"), random.Random(0))
    finished(capture_to(part))
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
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    finished([*run, "--out", whole])
    again = [*run, "--out", part, "--resume"]
    killed(again, lambda: stamp(tmp_path / "part.checkpoint"), random.Random(1))
    finished(again)
    expected, found = tensors(whole), tensors(part)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
