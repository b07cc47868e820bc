import pytest
import torch

from fluxtionary.dictionaries import SparseCode
from fluxtionary.residual import Moment, Record, Row, Site, Tap
from fluxtionary.residual.capture import Capture, CaptureError, Origin, Recording, latent_key

from ..conftest import make_dictionary

SITE = Site.parse("double.1.img")
QUARTERS = (1.0, 0.75, 0.5, 0.25, 0.0)
MOMENT = Moment(1.0, (Row("cond"),), (2, 2))


def latent(number):
    return torch.full((1, 16, 4, 4), float(number))


def record(tokens=4, width=8):
    """Activations of `tokens * width * 4` bytes."""
    return Record(MOMENT, torch.tensor([0]), activations=torch.zeros(1, tokens, width))


def keep(capture, recording, count=1, tokens=4):
    for _ in range(count):
        one = record(tokens)
        capture.add(recording, Tap(SITE), one, one.activations)


def plain(limit=2**20):
    return Capture({SITE: None}, limit)


def run_of(capture, origin, number, count=1):
    recording = capture.begin(origin, QUARTERS)
    keep(capture, recording, count)
    capture.finish(recording, latent(number))
    return recording


def test_a_run_is_found_by_the_latent_it_made():
    capture = plain()
    first = run_of(capture, Origin("a", 1), 1)
    second = run_of(capture, Origin("b", 1), 2)
    assert capture.run(latent(1)) is first and capture.run(latent(2)) is second
    assert first.latent == (4, 4) and first.steps == 4 and len(capture) == 2


def test_a_latent_has_one_key_in_every_type_that_holds_it_and_in_no_other_shape():
    x = torch.arange(16.0).reshape(1, 4, 2, 2)
    assert latent_key(x) == latent_key(x.half()) == latent_key(x.clone().requires_grad_())
    assert latent_key(x) == latent_key(x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2))
    assert latent_key(x) != latent_key(x.reshape(1, 4, 4, 1)) != latent_key(x + 1e-6)


def test_a_new_run_of_a_place_lets_go_of_its_earlier_execution_alone():
    capture = plain()
    run_of(capture, Origin("a", 1), 1)
    run_of(capture, Origin("b", 1), 2)
    run_of(capture, Origin("a", 2), 3)
    run_of(capture, Origin("a", 2), 4)  # the same execution: a node that samples twice
    with pytest.raises(CaptureError):
        capture.run(latent(1))
    for number in (2, 3, 4):
        assert capture.run(latent(number))
    assert len(capture) == 3


def test_runs_of_no_known_place_stay():
    capture = plain()
    for number in range(3):
        run_of(capture, None, number)
    assert len(capture) == 3


def test_a_run_that_does_not_end_is_not_there():
    capture = plain()
    keep(capture, capture.begin(None, QUARTERS))
    assert len(capture) == 0 and capture.get_ram_usage() == 0


def test_the_same_latent_again_replaces_the_run():
    capture = plain()
    run_of(capture, Origin("a", 1), 1)
    again = run_of(capture, Origin("b", 1), 1)
    assert len(capture) == 1 and capture.run(latent(1)) is again


def test_beyond_the_limit_the_oldest_runs_go_and_then_calls_are_counted_as_lost():
    capture = plain(limit=3 * 128)
    first, second = run_of(capture, Origin("a", 1), 1), run_of(capture, Origin("b", 1), 2)
    assert capture.get_ram_usage() == first.bytes + second.bytes == 256
    third = capture.begin(Origin("c", 1), QUARTERS)
    keep(capture, third, 2)
    assert len(capture) == 1 and capture.evicted == 1 and capture.run(latent(2)) is second
    keep(capture, third, 2)
    assert len(capture) == 0 and capture.evicted == 2
    assert third.bytes == 384 and third.lost == 1 and len(third.records[SITE]) == 3
    capture.finish(third, latent(3))
    with pytest.raises(CaptureError, match="2 earlier runs were let go to stay within the Tap's memory: raise it"):
        capture.run(latent(1))


def test_one_call_that_is_too_large_is_lost_and_smaller_ones_after_it_are_kept():
    capture = plain(limit=128)
    recording = capture.begin(None, QUARTERS)
    keep(capture, recording, tokens=400)
    keep(capture, recording)
    assert recording.lost == 1 and len(recording.records[SITE]) == 1


def test_codes_are_kept_in_little_and_the_fit_is_measured_on_lost_calls_too():
    dictionary = make_dictionary("double.1.img")
    x = torch.randn(1, 4, 128, generator=torch.Generator().manual_seed(0))
    capture = Capture({SITE: dictionary}, 4 * (8 + 8) * 4)
    recording = capture.begin(None, QUARTERS)
    for _ in range(2):
        capture.add(recording, Tap(SITE, dictionary), Record(MOMENT, torch.tensor([0]), code=dictionary.encode(x)), x)
    (kept,) = recording.records[SITE]
    assert kept.code.indices.dtype == torch.int32
    assert torch.equal(SparseCode(kept.code.values, kept.code.indices.long()).dense(48), dictionary.encode(x).dense(48))
    assert recording.lost == 1 and recording.fits[SITE].count == 8


def test_two_captures_share_nothing():
    one, other = plain(), plain()
    run_of(one, Origin("a", 1), 1)
    assert len(other) == 0 and not other._runs
    run_of(other, Origin("a", 2), 2)
    assert one.run(latent(1)) and len(one) == 1


def test_errors_say_what_to_do():
    capture = plain()
    with pytest.raises(CaptureError, match="seen no sampling run: connect its model.*change the sampler's seed"):
        capture.run(latent(1))
    run_of(capture, None, 1)
    with pytest.raises(CaptureError, match="none of the 1 runs.*just as the sampler gives it.*change its seed"):
        capture.run(latent(1) * 1.01)


def test_a_site_is_named_or_the_only_one():
    recording = Recording(None, QUARTERS, {SITE: None})
    assert recording.site() == recording.site("") == recording.site("double.1.img") == SITE
    with pytest.raises(CaptureError, match=r"has double\.1\.img, not single\.0\.txt: choose one"):
        recording.site("single.0.txt")
    with pytest.raises(ValueError, match="is no site"):
        recording.site("here")
    two = Recording(None, QUARTERS, {SITE: None, Site.parse("single.0.txt"): None})
    with pytest.raises(CaptureError, match=r"double\.1\.img, single\.0\.txt: say which"):
        two.site()


@pytest.mark.parametrize(
    ("sigmas", "steps"),
    [
        ((1.0, 0.75, 0.5, 0.25), (0, 1, 2, 3)),
        ((1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25), (0, 1, 1, 2, 2, 3, 3)),  # Heun: the second call is at the next sigma
        ((1.0, 0.87, 0.75, 0.61, 0.01), (0, 0, 1, 1, 3)),  # calls between, as dpm_2 makes
        ((1.0000001, 0.7499999, 0.7500004), (0, 1, 1)),  # sigmas of another precision
        ((1.3, 0.0, -1.0), (0, 3, 3)),  # beyond the ends
    ],
)
def test_a_call_belongs_to_the_step_in_which_its_sigma_lies(sigmas, steps):
    recording = Recording(None, QUARTERS, {SITE: None})
    assert tuple(map(recording.step, sigmas)) == steps


def test_a_schedule_may_rise_and_may_be_short():
    rising = Recording(None, tuple(reversed(QUARTERS)), {SITE: None})
    assert [rising.step(sigma) for sigma in (0.0, 0.2, 0.25, 0.5, 0.99, 1.0)] == [0, 0, 1, 2, 3, 3]
    once = Recording(None, (0.4,), {SITE: None})
    assert once.steps == 1 and once.step(0.4) == once.step(1.0) == 0
    part = Recording(None, (0.5, 0.25, 0.0), {SITE: None})
    assert [part.step(sigma) for sigma in (0.7, 0.5, 0.3, 0.25)] == [0, 0, 0, 1]
