"""Runs seen from outside: what a Watch kept of a block's input, and the latents of a workflow."""

from __future__ import annotations

from safetensors.torch import load_file

from .flow import Flow

TEXT, IMAGE = slice(0, 16), slice(16, 80)
"""Where a single block's tokens are text, and where they are the picture's, in a run with nothing besides."""


def calls(comfy, name):
    """What a Watch saw, call by call."""
    seen: dict[int, dict] = {}
    for key, value in load_file(comfy.base / "output" / f"{name}.safetensors").items():
        number, what = key.split(".")
        seen.setdefault(int(number), {})[what] = value
    return [seen[i] for i in sorted(seen)]


def latents(comfy, build, **options):
    """The latents of a workflow: `build(flow)` gives the model to sample with."""
    flow = Flow()
    saved = flow.save(flow.sample(build(flow), **options))
    return comfy.latent(comfy.run(flow), saved)


def plain(flow):
    return flow.model


def steered(flow):
    return flow.steer(flow.model)


def watched(comfy, name, steer, **options):
    """What goes into the first single block, with and without steering."""
    flow = Flow()
    model = flow.watch(flow.model, name)
    made = {key: value(flow) if callable(value) else value for key, value in options.items()}
    flow.save(flow.sample(flow.steer(model, **steer) if steer is not None else model, **made))
    comfy.run(flow)
    return calls(comfy, name)


def changed_tokens(before, after):
    """`[rows, tokens]`: where two calls differ."""
    return (before["img"] != after["img"]).any(-1)
