"""The Tap node: what it keeps is what the blocks put out, and it holds no more than it should."""

import pytest
import torch
from safetensors.torch import load_file

from .flow import Flow
from .living import LIVING, write_files

SITES = "double.1.img, double.1.txt, single.1.img, single.1.txt"


@pytest.mark.parametrize("name", ["alone", "cfg", "ControlNet", "reference pictures", "longer text", "batch"])
def test_a_capture_equals_a_forward_hook_s_clone(comfy, mask_file, name):
    """Also where what comes out of a block is added to in place, as for a ControlNet, and where tokens follow it."""
    write_files(comfy)
    flow, situation = Flow(), LIVING[name]
    hooked = flow.add("NeighbourHook", model=situation.wrap(flow, flow.model), block=1, name="hooked")
    tapped = flow.add("FluxtionaryTap", model=hooked, sites=SITES, rows="both")
    latent = situation.sample(flow, [tapped[0], 0])
    flow.add("NeighbourCaptured", latent=latent, capture=[tapped[0], 1], name="captured")
    comfy.run(flow)
    hooks, kept = (load_file(comfy.base / "output" / f"{what}.safetensors") for what in ("hooked", "captured"))
    calls = len([key for key in hooks if key.endswith("single")])
    assert calls == len(situation.sigmas) * len(situation.calls) and len(kept) == 4 * calls
    for i in range(calls):
        image, text, both = (hooks[f"{i}.{key}"] for key in ("double.img", "double.txt", "single"))
        length = text.shape[1]
        assert torch.equal(kept[f"{i}.double.1.img"], image[:, :64])
        assert torch.equal(kept[f"{i}.double.1.txt"], text)
        assert torch.equal(kept[f"{i}.single.1.img"], both[:, length : length + 64])
        assert torch.equal(kept[f"{i}.single.1.txt"], both[:, :length])


def captured(comfy, seed: int, **options) -> dict:
    """What a capture says of itself after a run with a seed."""
    flow = Flow()
    tapped = flow.add("FluxtionaryTap", model=flow.model, sites=SITES, **options)
    latent = flow.sample([tapped[0], 0], seed=seed)
    told = flow.add("NeighbourCaptured", latent=latent, capture=[tapped[0], 1], name="captured")
    return comfy.run(flow)[told[0]]


def test_a_new_seed_replaces_the_run_before(comfy):
    """Queued again and again, the same graph holds one run, whatever the seeds."""
    found = [captured(comfy, seed) for seed in range(5)]
    assert [one["runs"] for one in found] == [[1]] * 5
    assert len({one["bytes"][0] for one in found}) == 1 and found[0]["bytes"][0] == 4 * 4 * 192 * 2 * (64 + 16)
