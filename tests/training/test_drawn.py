import numpy as np
import pytest
import torch

from fluxtionary.residual import Plan, Site, SiteError, Tap
from fluxtionary.residual.diffusers_host import attach
from fluxtionary.training.drawn import DrawnPictures, read_moments
from fluxtionary.training.models import ModelError
from fluxtionary.training.sampling import Sampling, draw_pictures

PROMPTS = ["a red circle", "small, blue, ring", "a cross on a tan background"]
SEEDS = [4, 5, 6]
SAMPLING = Sampling(steps=4, batch=2)
IMG, TXT = Site.parse("double.1.img"), Site.parse("double.0.txt")


def stream_of(pipeline, sites=(IMG,), prompts=PROMPTS, seeds=SEEDS, **options):
    return DrawnPictures(pipeline, prompts, seeds, sites, SAMPLING, **({"moments": 2} | options))


def test_pictures_are_those_drawn_without_looking(random_flux):
    batches = list(stream_of(random_flux).batches())
    assert [batch.first for batch in batches] == [0, 2]
    pictures = np.concatenate([batch.pictures for batch in batches])
    plain = draw_pictures(random_flux, PROMPTS, SEEDS, SAMPLING)
    assert pictures.dtype == np.uint8 and pictures.shape == plain.shape == (3, 128, 128, 3)
    assert np.abs(pictures.astype(int) - plain).max() <= 1  # embeddings of a batch and of one prompt round differently


def test_tokens_are_those_of_the_moments_that_are_read(random_flux, draw):
    stream = stream_of(random_flux)
    last = list(stream.batches())[1].tokens[IMG]
    assert last.x.shape == (2 * 64, 128) and set(last.picture.tolist()) == {2}
    tap = Tap(IMG)
    with attach(random_flux, Plan([tap])) as run:
        draw(random_flux, PROMPTS[2], steps=4, seed=SEEDS[2])
    for sigma, step in zip(stream.sigmas, (1, 3), strict=True):
        record = run.records[tap][step]
        assert record.moment.sigma == pytest.approx(sigma, abs=1e-5)
        at = torch.isclose(last.sigma, torch.tensor(sigma), atol=1e-5)
        assert torch.equal(last.position[at], torch.arange(64))
        assert torch.allclose(last.x[at], record.activations[0], atol=1e-4)


def test_a_batch_is_the_same_whenever_it_is_asked_for(random_flux):
    stream = stream_of(random_flux, (IMG, TXT))
    whole, (again,) = list(stream.batches()), list(stream.batches(1))
    assert again.first == 2 and np.array_equal(again.pictures, whole[1].pictures)
    for site in (IMG, TXT):
        for one, other in zip(whole[1].tokens[site], again.tokens[site], strict=True):
            assert torch.equal(one, other)


def test_text_tokens_leave_out_padding(random_flux):
    first, second = stream_of(random_flux, (TXT,)).batches()
    lengths = [4, 4, 7]  # words and the end mark
    assert torch.bincount(first.tokens[TXT].picture).tolist() == [2 * n for n in lengths[:2]]
    assert len(second.tokens[TXT].x) == 2 * lengths[2]


@pytest.mark.parametrize(("steps", "moments", "read"), [(22, 4, [2, 8, 13, 19]), (4, 4, [0, 1, 2, 3]), (1, 1, [0])])
def test_moments_are_spread_evenly_over_sampling(random_flux, steps, moments, read):
    sigmas, windows = read_moments(random_flux, Sampling(steps=steps), moments)
    schedule = [1 - i / steps for i in range(steps)]
    assert sigmas == pytest.approx([schedule[i] for i in read])
    for number, window in zip(read, windows, strict=True):
        assert [window.holds(sigma * 1.001) for sigma in schedule] == [i == number for i in range(steps)]


def test_what_cannot_be_read_is_refused(random_flux):
    with pytest.raises(ModelError, match="moments must lie between 1 and the 4 steps of sampling, found 5"):
        stream_of(random_flux, moments=5)
    with pytest.raises(SiteError, match="double.9"):
        stream_of(random_flux, (Site.parse("double.9.img"),))
    with pytest.raises(ValueError, match="one seed a prompt"):
        stream_of(random_flux, seeds=[1])
