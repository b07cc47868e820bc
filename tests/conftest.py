"""Fixtures: small random Flux pipelines, and dictionaries that fit them."""

from __future__ import annotations

import json
import os
import signal
from datetime import date
from pathlib import Path

import pytest
import torch

from fluxtionary.dictionaries import Activation, Normalization, Scale, SparseAutoencoder
from fluxtionary.dictionaries.scale import BINS

from .host.comfy_server import COMFYUI, FIGURES, HOW_TO_GET_ONE

# A shell lets what it starts in the background ignore Ctrl-C, which tests of interruptions need to work.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Of two processes with two threads each on two cores, every one waits for the other.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def random_flux():
    """A Flux pipeline in the demo's layout with random weights: 2 double and 2 single blocks, 128 wide."""
    from diffusers import AutoencoderTiny

    from fluxtionary.demo.build import new_pipeline, new_transformer

    torch.manual_seed(0)
    pipeline = new_pipeline(
        new_transformer("small"), AutoencoderTiny(latent_channels=16, scaling_factor=1.0, shift_factor=0.0)
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def demo_flux():
    """The demo Flux that ships with the package."""
    from fluxtionary.training.models import load_pipeline

    return load_pipeline("demo")


def make_dictionary(
    site: str, d_model: int = 128, n_features: int = 48, k: int = 8, seed: int = 0
) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return SparseAutoencoder(
        site=site,
        encoder=random(n_features, d_model) / d_model**0.5,
        encoder_bias=0.1 * random(n_features),
        decoder=random(n_features, d_model),
        decoder_bias=0.1 * random(d_model),
        activation=Activation("topk", k),
        normalization=Normalization(0.1 * random(d_model), random(d_model).abs() + 0.5),
        scale=Scale(torch.linspace(1, 3, BINS)),
        natural=random(n_features).abs(),
    )


@pytest.fixture
def dictionary() -> SparseAutoencoder:
    """A random dictionary for `double.1.img` of `random_flux`."""
    return make_dictionary("double.1.img")


@pytest.fixture(scope="session")
def draw():
    """Draw latents with a pipeline: `draw(pipeline, prompts, **options)`, two steps of 128x128."""

    def run(pipeline, prompt="a red circle", steps=2, seed=0, **options):
        count = 1 if isinstance(prompt, str) else len(prompt)
        with torch.inference_mode():
            return pipeline(
                prompt=prompt,
                height=128,
                width=128,
                num_inference_steps=steps,
                max_sequence_length=16,
                generator=[torch.Generator().manual_seed(seed + i) for i in range(count)],
                output_type="latent",
                **options,
            ).images

    return run


def pytest_collection_modifyitems(items):
    """With several workers, a file stays with one of them, and so do all tests that share the one ComfyUI."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group("host" if folder == "host" else str(item.path)))


def pytest_addoption(parser):
    parser.addoption("--record", metavar="FILE", help="write what the ComfyUI tests showed to a JSON file")
    parser.addoption("--snapshot", action="store_true", help="write the snapshot of all nodes' schemas anew")


LAST_LINE = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter, config):
    """Whether the ComfyUI tests ran, for the last line; with `--record`, what they showed.

    It is here, not with those tests: a run with several workers reads their conftest in the workers alone.
    """
    here = str((Path(__file__).parent / "host").relative_to(config.rootpath))
    counts = {
        kind: sum(report.nodeid.startswith(here) for report in terminalreporter.stats.get(kind, []))
        for kind in ("passed", "failed", "error", "skipped")
    }
    if COMFYUI is None:
        config.stash[LAST_LINE] = f"ComfyUI tests: skipped, {HOW_TO_GET_ONE}"
        return
    version = (COMFYUI / "comfyui_version.py").read_text().split('"')[-2]
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    config.stash[LAST_LINE] = f"ComfyUI tests: ran in ComfyUI {version}, {said or 'none chosen'}"
    if (record := config.getoption("--record")) is not None:
        found = {"comfyui": version, "date": date.today().isoformat(), "tests": counts, "figures": FIGURES}
        Path(record).write_text(json.dumps(found, indent=2) + "\n")


def pytest_unconfigure(config):
    if LAST_LINE in config.stash:
        print(config.stash[LAST_LINE])
