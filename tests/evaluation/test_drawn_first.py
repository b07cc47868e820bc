"""Some pictures of a stream are finished and kept; as activations the stream is what it was."""

import pytest
import torch

from fluxtionary.evaluation.cases import sample_cases
from fluxtionary.evaluation.drawn_first import DrawnFirst
from fluxtionary.residual import Site
from fluxtionary.training.capture import Capture, PipelineStream
from fluxtionary.training.drawn import DrawnPictures
from fluxtionary.training.sampling import Sampling

SITE = Site.parse("double.1.img")


@pytest.fixture(scope="module")
def streams(demo_flux):
    sampling = Sampling(steps=3, batch=2)
    cases = sample_cases(5, 0, "train")
    prompts, seeds = [case.caption for case in cases], [case.seed for case in cases]
    live = PipelineStream(demo_flux, prompts, seeds, [SITE], Capture(), sampling)
    pictures = DrawnPictures(demo_flux, prompts[:4], seeds[:4], [SITE], sampling, 3)
    return live, DrawnFirst(live, list(pictures.batches()))


@pytest.mark.parametrize(("start", "step"), [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (1, 3)])
def test_it_has_the_tokens_of_the_live_stream(streams, start, step):
    live, first = streams
    found, expected = list(first.batches(start, step)), list(live.batches(start, step))
    assert len(found) == len(expected) and len(first) == len(live) == 3
    for one, other in zip(found, expected, strict=True):
        for name, column in one[SITE]._asdict().items():
            same = getattr(other[SITE], name)
            assert torch.allclose(column, same, rtol=1e-4, atol=1e-4) if name == "x" else torch.equal(column, same)


def test_what_is_kept_is_the_pictures(streams):
    _, first = streams
    kept = first.kept()
    assert len(kept) == 2 and kept.prompts == first.prompts and len(first.drawn[0].pictures) == 2
    assert [batch[SITE].picture.unique().tolist() for batch in kept.batches()] == [[0, 1], [2, 3]]
