"""What steering and tapping cost in ComfyUI: sampling time with ten steering nodes, and with a Tap, over bare.

A Flux 1 of full width with 2 double and 4 single blocks and random weights, in one running ComfyUI on the CPU. The
three kinds of runs take turns there; the ratio is the median over rounds of a run's time over the bare one's of the
same round, taken inside the server from the start of sampling to its end. The Tap encodes a TopK dictionary and
measures its fit, as the node does. A dictionary's share of a step shrinks with the number of blocks: the Flux 1 that
people run has 19 and 38. About 10 GB of memory.

    python benchmarks/host_overhead.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "host"))

from comfy_server import HOW_TO_GET_ONE, ComfyServer, Graph, find_comfyui  # noqa: E402

SITES = [*(f"double.{i}.img" for i in range(2)), *(f"single.{i}.img" for i in range(4))]
TAPPED = "double.1.img"
EDITS, TEXT = 10, 64
WAIT = 3600


def steered(graph: Graph, model: list, given: argparse.Namespace) -> list:
    """Ten Steer With Feature, at every image site in turn."""
    for number in range(EDITS):
        dictionary = graph.add(
            "BenchmarkRandomDictionary", site=SITES[number % len(SITES)], d_model=given.d_model, features=EDITS, k=1
        )
        place = {"start_percent": 0.0, "end_percent": 1.0, "rows": "both"}
        model = graph.add(
            "FluxtionarySteerWithFeature",
            **{"model": model, "dictionary": dictionary, "feature": number, "strength": 0.1} | place,
        )
    return model


def tapped(graph: Graph, model: list, given: argparse.Namespace) -> list:
    sizes = {"d_model": given.d_model, "features": given.features, "k": given.k}
    dictionary = graph.add("BenchmarkRandomDictionary", site=TAPPED, **sizes)
    return graph.add("FluxtionaryTap", model=model, dictionary=dictionary, rows="both")


KINDS = {"bare": lambda graph, model, given: model, "steer": steered, "tap": tapped}


def seconds(server: ComfyServer, kind: str, given: argparse.Namespace) -> float:
    """How long one run took to sample."""
    graph = Graph()
    flux = graph.add("BenchmarkWideFlux", d_model=given.d_model, text=TEXT)
    timed = graph.add("BenchmarkTimed", model=flux)
    text = [flux[0], 1]
    latent = graph.add(
        "KSampler",
        model=KINDS[kind](graph, timed, given),
        positive=text,
        negative=text,
        latent_image=graph.add("EmptySD3LatentImage", width=given.size, height=given.size, batch_size=1),
        **{"seed": 1, "steps": given.steps, "cfg": 1.0, "denoise": 1.0},
        **{"sampler_name": "euler", "scheduler": "simple"},
    )
    told = graph.add("BenchmarkSeconds", after=latent, seconds=[timed[0], 1])
    found = server.wait(server.queue(graph.nodes), WAIT)["outputs"][told[0]]
    if found["finite"] != [True]:
        raise RuntimeError(f"the {kind} run made a latent that is not finite")
    return found["seconds"][0]


def taking_turns(rounds: int) -> list[list[str]]:
    """The kinds in each round, each of them first, second and last about as often."""
    names = list(KINDS)
    return [names[number % 3 :] + names[: number % 3] for number in range(rounds)]


def measure(server: ComfyServer, given: argparse.Namespace) -> dict[str, Any]:
    for kind in KINDS:  # warms up
        seconds(server, kind, given)
    rounds = [{kind: seconds(server, kind, given) for kind in order} for order in taking_turns(given.rounds)]
    median = {kind: statistics.median(found[kind] for found in rounds) for kind in KINDS}
    ratios = {kind: [found[kind] / found["bare"] for found in rounds] for kind in ("steer", "tap")}
    return {
        "ratios": {kind: round(statistics.median(values), 4) for kind, values in ratios.items()},
        "spread": {kind: [round(min(values), 4), round(max(values), 4)] for kind, values in ratios.items()},
        "step_seconds": round(median["bare"] / given.steps, 4),
        "run_seconds": {kind: round(value, 3) for kind, value in median.items()},
        "edits": EDITS,
        "image_tokens": (given.size // 16) ** 2,
        "text_tokens": TEXT,
        **{name: getattr(given, name) for name in ("d_model", "features", "k", "steps", "rounds")},
        "processors": os.cpu_count(),
        "comfyui": server.get("/system_stats")["system"]["comfyui_version"],
        "torch": server.get("/system_stats")["system"]["pytorch_version"],
    }


def run(given: argparse.Namespace) -> dict[str, Any]:
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit(HOW_TO_GET_ONE)
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(comfyui, Path(base), "fluxtionary-benchmark", {})
        (Path(base) / "custom_nodes" / "host_pack").symlink_to(HERE / "host_pack", target_is_directory=True)
        server.start()
        try:
            return measure(server, given)
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--d-model", type=int, default=3072, help="a multiple of 128")
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--size", type=int, default=128, help="of the picture, in pixels")
    parser.add_argument("--steps", type=int, default=1, help="of a run: short ones in turns see the same machine")
    parser.add_argument("--rounds", type=int, default=31)
    given = parser.parse_args()
    found = run(given)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"a bare step takes {found['step_seconds']:.2f} s")
    for kind, what in (("steer", f"{EDITS} steering nodes"), ("tap", f"a Tap of {given.features:,} features")):
        low, high = found["spread"][kind]
        print(f"{what}: {found['ratios'][kind]:.3f}x the time of a bare run ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
