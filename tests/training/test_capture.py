import pytest
import torch

from fluxtionary.residual import Plan, Site, Tap
from fluxtionary.residual.diffusers_host import attach
from fluxtionary.training.capture import capture, capture_header, collect
from fluxtionary.training.sampling import Sampling, draw_pictures, run_batches, text_length

PROMPTS = ["a red circle", "small, blue, ring", "", "a cross on a tan background", "a ring"]
SAMPLING = Sampling(steps=2, batch=2)


def test_image_tokens_are_those_of_the_stream(random_flux, draw):
    site = Site.parse("double.1.img")
    tokens = collect(capture(random_flux, PROMPTS, [1, 2, 3, 4, 5], site, SAMPLING))
    assert tokens.x.shape == (5 * 2 * 64, 128)
    tap = Tap(site)
    with attach(random_flux, Plan([tap])) as run:
        draw(random_flux, PROMPTS[4], seed=5)
    own = tokens.picture == 4
    for record in run.records[tap]:
        at = own & (tokens.sigma == record.moment.sigma)
        assert torch.equal(tokens.position[at], torch.arange(64))
        assert torch.allclose(tokens.x[at], record.activations[0], atol=1e-4)


def test_text_tokens_leave_out_padding(random_flux):
    tokens = collect(capture(random_flux, PROMPTS, [0] * 5, Site.parse("double.0.txt"), SAMPLING))
    lengths = [len(prompt.replace(",", "").split()) + 1 for prompt in PROMPTS]  # its words and the end mark
    assert torch.bincount(tokens.picture).tolist() == [2 * length for length in lengths]


def test_collecting_stops_at_the_limit(random_flux):
    stream = capture(random_flux, PROMPTS, [0] * 5, Site.parse("double.1.img"), SAMPLING)
    assert len(collect(stream, 100).x) == 100


def test_the_header_tells_prompts_apart():
    first, second = (capture_header(prompts, SAMPLING, 16, 7) for prompts in (["a"], ["b"]))
    assert first["prompts_sha256"] != second["prompts_sha256"]
    assert (first["steps"], first["n_tokens"], first["max_sequence_length"]) == (2, 7, 16)


def test_pictures_depend_on_their_own_seed_alone(random_flux):
    together = draw_pictures(random_flux, PROMPTS[:3], [1, 2, 3], Sampling(steps=2, batch=3))
    alone = draw_pictures(random_flux, PROMPTS[1:2], [2], Sampling(steps=2, batch=1))
    assert abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1
    assert together.shape == (3, 128, 128, 3)


def test_every_prompt_needs_a_seed(random_flux):
    with pytest.raises(ValueError, match="5 captions and 1 seeds"):
        list(run_batches(random_flux, PROMPTS, [1], SAMPLING))


def test_the_text_length_is_the_models_own(random_flux):
    assert text_length(random_flux) == 16
