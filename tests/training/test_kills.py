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
LEAST = 60.0


def tensors(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def finished(arguments):
    started = time.monotonic()
    subprocess.run([COMMAND, *map(str, arguments)], check=True, capture_output=True)
    return time.monotonic() - started


def killed(arguments, kills, begun, rng):
    """Start it again and again, and kill it at a random point after `begun()`; how often it was killed."""
    done = 0
    while done < kills:
        process = subprocess.Popen(
            [COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = begun()
        # at any point, from before anything new is written to some while after
        wait = rng.uniform(0, 6)
        until = time.monotonic() + 240
        while begun() == before and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(wait)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        done += 1
    return done


def stamp(path):
    return path.stat().st_mtime_ns if path.exists() else None


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills") / "whole"
    seconds = finished(capture_to(folder))
    return folder, seconds


def capture_to(folder):
    return ["capture", "--out", folder, "--site", "double.1.img", "double.1.txt", "--shard-tokens", 30_000,
            "--prompts", Path(__file__).with_name("captions.txt"), "--pictures", 20]  # fmt: skip


@pytest.mark.long
def test_captures(shards, tmp_path):
    whole, seconds = shards
    assert seconds >= LEAST
    part = tmp_path / "part"
    assert killed(capture_to(part), KILLS, lambda: stamp(part / "manifest.json"), random.Random(0)) >= 5
    if not (part / "manifest.json").exists() or '"complete": true' not in (part / "manifest.json").read_text():
        finished(capture_to(part))
    files = sorted(path.name for path in whole.iterdir())
    assert len(files) > 6 and files == sorted(path.name for path in part.iterdir())
    assert all((whole / name).read_bytes() == (part / name).read_bytes() for name in files)


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        ["train-sae", "--sae.features", 1024, "--sae.tokens", 1_600_000, "--sae.batch", 512, "--sae.buffer", 0.05],
        ["build-itda", "--itda.atoms", 6000, "--itda.tokens", 100_000, "--itda.per-picture", 400,
         "--itda.threshold", 0.06, "--itda.k", 12],
    ],
    ids=["training", "building"],
)  # fmt: skip
def test_dictionaries(shards, tmp_path, options):
    run = [*options, "--shards", shards[0], "--checkpoint-seconds", 4, "--held-out", 0]
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    assert finished([*run, "--out", whole]) >= LEAST
    again = [*run, "--out", part, "--resume"]
    assert killed(again, KILLS, lambda: stamp(tmp_path / "part.checkpoint"), random.Random(1)) >= 5
    if not part.exists():
        finished(again)
    expected, found = tensors(whole), tensors(part)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
