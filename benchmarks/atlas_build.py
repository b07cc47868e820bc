"""How much building an atlas slows a capture down, and the memory it takes for few and for many pictures.

Speed: the demo Flux draws the same pictures, reading the same moments, batch by batch in turns in one process: captured
(drawn, decoded, activations read) and built into an atlas (the same, then encoded with the dictionary, gathered,
written; what the atlas takes at its end is counted in). `ratio_of_latents` compares with a capture that leaves the
pictures undecoded: the demo's VAE takes a third of its time on a CPU, where that of Flux 1 takes a hundredth.
Memory: made-up pictures, so that only the building is left; the peak of a process of its own for each number of them.

    python benchmarks/atlas_build.py --json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fluxtionary.dictionaries import Activation, SparseAutoencoder, load_dictionary
from fluxtionary.interpretation.build import build_atlas
from fluxtionary.residual import Site
from fluxtionary.residual.tokens import Tokens
from fluxtionary.training.drawn import Drawn, DrawnPictures
from fluxtionary.training.sampling import Sampling, run_batches

SITE = Site.parse("double.1.img")


class MadeUpPictures:
    """A `PictureStream` as quick as can be: sparse activations in a space in which every channel is a feature."""

    sites, model, header = (SITE,), {"family": "flux1", "name": "made up"}, {}
    grid, size, sigmas = (8, 8), (128, 128), (0.75, 0.25)
    features, active = 2048, 8
    batch = 10
    """Few: what comes and goes with a batch is not to hide what stays."""

    def __init__(self, pictures: int):
        self.prompts = [f"picture {i}" for i in range(pictures)]
        self.seeds = list(range(pictures))

    def __len__(self) -> int:
        return -(-len(self.prompts) // self.batch)

    def batches(self, start: int = 0) -> Iterator[Drawn]:
        for number in range(start, len(self)):
            first = number * self.batch
            count = min(self.batch, len(self.prompts) - first)
            generator = torch.Generator().manual_seed(number)
            n = count * 64
            pixels = torch.randint(0, 256, (count, 1, 1, 3), generator=generator, dtype=torch.uint8)
            parts = []
            for sigma in self.sigmas:
                x = torch.zeros(n, self.features)
                which = torch.randint(self.features, (n, self.active), generator=generator)
                x.scatter_(1, which, torch.rand(n, self.active, generator=generator))
                picture = torch.arange(first, first + count).repeat_interleave(64)
                parts.append(Tokens(x, torch.full((n,), sigma), torch.arange(64).repeat(count), picture))
            pictures = np.broadcast_to(pixels.numpy(), (count, *self.size, 3)).copy()
            yield Drawn(first, pictures, {SITE: Tokens.joined(parts)})


class _Codes(SparseAutoencoder):
    """Codes that are the activations themselves, without the product that would take all the time."""

    def _before(self, x: torch.Tensor) -> torch.Tensor:
        return x


def peak_memory(pictures: int) -> int:
    """Bytes this process has held at most, after building an atlas."""
    _give_back_what_is_freed()
    n = MadeUpPictures.features
    zero = torch.zeros(n)
    dictionary = _Codes(
        str(SITE),
        torch.zeros(1, n).expand(n, n),
        zero,
        torch.zeros(n, n),
        zero,
        Activation("topk", MadeUpPictures.active),
    )
    with tempfile.TemporaryDirectory() as folder:
        build_atlas(MadeUpPictures(pictures), dictionary, folder, progress=False, every_seconds=0.2).close()
    status = Path("/proc/self/status")  # there it is this program's own; rusage has that of whoever started it, too
    if status.exists():
        return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _give_back_what_is_freed() -> None:
    """Have glibc map every block from 128 KiB on for itself: a heap with holes moves the peak by a tenth."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).mallopt(-3, 128 * 1024)  # M_MMAP_THRESHOLD


class Alternating:
    """A `PictureStream` that draws each batch into latents first, then as it is, and notes what each takes."""

    def __init__(self, stream: DrawnPictures):
        self.stream, self.seconds = stream, dict[str, list[float]](latents=[], capture=[], build=[])
        for name in ("sites", "prompts", "seeds", "grid", "size", "sigmas", "model", "header"):
            setattr(self, name, getattr(stream, name))

    def __len__(self) -> int:
        return len(self.stream)

    def batches(self, start: int = 0) -> Iterator[Drawn]:
        inner, size = self.stream.batches(start), self.stream.sampling.batch
        for number in range(start, len(self)):
            part = slice(number * size, (number + 1) * size)
            self._timed("latents", lambda part=part: self._latents(part))
            drawn = self._timed("capture", lambda: next(inner))
            began = time.perf_counter()
            yield drawn
            self.seconds["build"].append(time.perf_counter() - began)

    def _latents(self, part: slice) -> None:
        stream = self.stream
        pipeline, prompts, seeds = stream.pipeline, stream.prompts[part], stream.seeds[part]
        for _ in run_batches(pipeline, prompts, seeds, stream.sampling, stream.plan):
            pass

    def _timed(self, name: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = call()
        self.seconds[name].append(time.perf_counter() - began)
        return found


def speed(batches: int, size: int) -> dict[str, Any]:
    from fluxtionary.demo import files
    from fluxtionary.evaluation.cases import sample_cases
    from fluxtionary.training.models import load_pipeline

    dictionary = load_dictionary(files.DICTIONARY)
    cases = sample_cases((batches + 1) * size, 5, "validation")
    captions, seeds = [case.caption for case in cases], [case.seed for case in cases]
    sites = [Site.parse(dictionary.site)]
    stream = Alternating(DrawnPictures(load_pipeline("demo"), captions, seeds, sites, Sampling(batch=size)))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        build_atlas(stream, dictionary, folder, progress=False).close()
    whole = time.perf_counter() - began
    seconds = {name: sum(times[1:]) for name, times in stream.seconds.items()}  # the first batch warms up
    end = whole - sum(map(sum, stream.seconds.values()))  # begun, finished and opened
    build = seconds["capture"] + seconds["build"] + end
    pictures = batches * size
    return {
        "ratio": round(seconds["capture"] / build, 3),
        "ratio_of_latents": round(seconds["latents"] / build, 3),
        "pictures_per_second": {
            "capture": round(pictures / seconds["capture"], 3),
            "build": round(pictures / build, 3),
        },
        "seconds": {name: round(value, 2) for name, value in (seconds | {"end": end}).items()},
        "pictures": pictures,
        "torch": torch.__version__,
    }


def memory(few: int, many: int) -> dict[str, Any]:
    found = {}
    for pictures in (few, many):
        command = [sys.executable, str(Path(__file__)), "--memory-of", str(pictures)]
        found[str(pictures)] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"peak_bytes": found, "growth": round(found[str(many)] / found[str(few)] - 1, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--batches", type=int, default=6, help="of pictures, for the speed; one more warms up")
    parser.add_argument("--size", type=int, default=20, help="pictures in a batch")
    parser.add_argument("--few", type=int, default=1000, help="pictures, for the memory")
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--memory-of", type=int, help="print the peak memory for so many pictures, and nothing else")
    given = parser.parse_args()
    if given.memory_of:
        print(peak_memory(given.memory_of))
        return
    found = speed(given.batches, given.size) | {"memory": memory(given.few, given.many)}
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"building an atlas: {found['ratio']:.0%} of the speed of a capture ({found['pictures_per_second']})")
    peak = ", ".join(f"{size / 1e6:,.0f} MB for {n} pictures" for n, size in found["memory"]["peak_bytes"].items())
    print(f"peak memory: {peak}")


if __name__ == "__main__":
    main()
