"""How much a capture saves by ending each pass after its last tapped block, and what tapping costs.

A Flux of full depth (19 double and 38 single blocks) at reduced width, random weights; the transformer alone, so that
nothing else hides the difference. Passes of each kind take turns in one process, and the ratio is that of medians.

    python benchmarks/capture.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import torch
from timing import timed

from fluxtionary.residual import Plan, Site, Tap
from fluxtionary.residual.diffusers_host import Stopped, attach

IMAGE, TEXT, BATCH = 16 * 16, 64, 2


def flux(width: int, device: str) -> Any:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    heads = width // 32
    return (
        FluxTransformer2DModel(
            in_channels=64,
            num_layers=19,
            num_single_layers=38,
            attention_head_dim=32,
            num_attention_heads=heads,
            joint_attention_dim=64,
            pooled_projection_dim=32,
            axes_dims_rope=(8, 12, 12),
        )
        .to(device)
        .eval()
    )


def inputs(device: str) -> dict[str, Any]:
    rows = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"), -1).flatten(0, 1)
    return {
        "hidden_states": torch.randn(BATCH, IMAGE, 64, device=device),
        "encoder_hidden_states": torch.randn(BATCH, TEXT, 64, device=device),
        "pooled_projections": torch.randn(BATCH, 32, device=device),
        "timestep": torch.full((BATCH,), 0.5, device=device),
        "img_ids": torch.cat([torch.zeros(IMAGE, 1), rows], 1).to(device),
        "txt_ids": torch.zeros(TEXT, 3, device=device),
        "return_dict": False,
    }


def passes(transformer: Any, given: dict[str, Any]) -> dict[str, Callable[[], None]]:
    pipeline = SimpleNamespace(transformer=transformer)

    def run(site: str | None, stop: bool = False) -> Callable[[], None]:
        def call() -> None:
            plan = Plan([Tap(Site.parse(site))] if site else [])
            hooks = attach(pipeline, plan, (lambda number: True) if stop else None) if site else nullcontext()
            with hooks, torch.inference_mode(), suppress(Stopped):
                transformer(**given)

        return call

    return {
        "full": run(None),
        "tapped": run("double.18.img"),
        "double_9": run("double.9.img", stop=True),
        "double_18": run("double.18.img", stop=True),
    }


def measure(width: int, rounds: int, device: str) -> dict[str, Any]:
    calls = passes(flux(width, device), inputs(device))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            taken = timed(call, device)[1]
            if number:  # the first round warms up
                seconds[name].append(taken)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    overhead = statistics.median(a / b for a, b in zip(seconds["tapped"], seconds["full"], strict=True))
    return {
        "ratios": {name: round(median["full"] / median[name], 3) for name in ("double_9", "double_18")},
        "tap_overhead": round(overhead, 4),
        "tokens_per_second": {name: round(BATCH * IMAGE / value) for name, value in median.items()},
        "width": width,
        "rounds": rounds,
        "device": device,
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    found = measure(given.width, given.rounds, given.device)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name, ratio in found["ratios"].items():
        print(f"stopping after {name.replace('_', '.')}: {ratio:.2f}x the tokens/s of a full pass")
    print(f"a full pass with one tap: {found['tap_overhead']:.3f}x the time of one without")


if __name__ == "__main__":
    main()
