import pytest
import torch

from fluxtionary.evaluation.kept_pictures import KeptPictures
from fluxtionary.residual import Site

from ..interpretation.streams import SITE, MadeUpPictures

OTHER = Site.parse("single.0.img")


@pytest.fixture
def stream():
    stream = MadeUpPictures(17)
    stream.sites = (SITE, OTHER)
    return stream


@pytest.fixture
def batches(stream):
    return [one._replace(tokens=dict.fromkeys(stream.sites, one.tokens[SITE])) for one in stream.batches()]


def test_it_says_what_the_stream_says_and_gives_its_batches(stream, batches):
    kept = KeptPictures(stream, batches)
    for name in ("prompts", "seeds", "grid", "size", "sigmas", "model", "header", "sites"):
        assert getattr(kept, name) == getattr(stream, name), name
    assert len(kept) == len(stream) == 3
    for start in (0, 2, 3):
        assert [one.first for one in kept.batches(start)] == [7 * n for n in range(start, 3)]
    for one, other in zip(kept.batches(), batches, strict=True):
        assert one.pictures is other.pictures and one.tokens.keys() == {SITE, OTHER}
        assert torch.equal(one.tokens[SITE].x, other.tokens[SITE].x)


def test_sites_that_are_not_asked_for_are_left_out_and_the_stream_stays_as_it_is(stream, batches):
    kept = KeptPictures(stream, batches, [OTHER], {"weights": "random", "steps": 9})
    assert kept.sites == (OTHER,) and all(one.tokens.keys() == {OTHER} for one in kept.batches())
    assert kept.header == {"steps": 9, "weights": "random"} and stream.header == {"steps": 2}
    assert all(one.tokens.keys() == {SITE, OTHER} for one in batches)
    with pytest.raises(KeyError):
        list(KeptPictures(stream, batches, [Site.parse("double.0.img")]).batches())
