import itertools

import pytest
import torch

from fluxtionary.residual import Site
from fluxtionary.training.buffer import Place, ShuffleBuffer
from fluxtionary.training.stream import Only

from .streams import SITE, TokenStream, sparse_tokens

OTHER = Site.parse("double.0.txt")


def numbered(count, size=250):
    tokens = sparse_tokens(count)
    tokens.x[:, 1] = torch.arange(float(count))
    return TokenStream(tokens, size)


def buffer_of(stream, tokens=1000, batch=100, reuse=2.0, seed=0):
    size = 24 * 4 + 4 + 8 + 8
    return ShuffleBuffer(stream, tokens * size, batch, reuse, seed)


def numbers(buffer, count):
    return [batch[SITE][:, 1] for batch in itertools.islice(buffer, count)]


def test_it_mixes_and_reuses_and_holds_two_parts():
    buffer = buffer_of(numbered(5000))
    buffer.start()
    assert buffer.parts == 10
    seen = torch.cat(numbers(buffer, 10))
    assert seen.max() < 1000 and len(seen.unique()) == 1000  # all of the first two parts, once each
    assert not torch.equal(seen, seen.sort().values)
    uses = torch.bincount(torch.cat([seen, *numbers(buffer, 80)]).long(), minlength=5000)
    assert uses[500:4500].float().mean() == pytest.approx(2.0, abs=0.05)
    assert 0.4 < (uses[500:4500] == 2).float().mean()
    assert buffer.captured == 5000


def test_after_its_end_the_stream_begins_anew():
    stream = numbered(1500)
    buffer = buffer_of(stream)
    buffer.start()
    late = torch.cat(numbers(buffer, 40)[-10:])
    assert late.min() < 500 or late.max() >= 1000
    assert stream.asked.count(0) == 3  # the measuring one, the first round and the third


def test_a_stream_that_fits_is_captured_once():
    stream = numbered(400)
    buffer = buffer_of(stream)
    buffer.start()
    seen = torch.cat(numbers(buffer, 100))
    assert torch.bincount(seen.long()).tolist() == [25] * 400
    assert stream.asked == [0, 0, 1]


@pytest.mark.parametrize("cut", [1, 9, 10, 11, 37])
def test_it_goes_on_from_any_place(cut):
    whole = buffer_of(numbered(3000))
    whole.start()
    expected = numbers(whole, 60)
    first = buffer_of(numbered(3000))
    first.start()
    begun = numbers(first, cut)
    second = buffer_of(numbered(3000))
    second.start(Place(*first.place))
    for one, other in zip(expected, begun + numbers(second, 60 - cut), strict=True):
        assert torch.equal(one, other)


def test_the_seed_decides_the_order():
    orders = []
    for seed in (0, 0, 1):
        buffer = buffer_of(numbered(3000), seed=seed)
        buffer.start()
        orders.append(torch.cat(numbers(buffer, 20)))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


def test_sites_with_fewer_tokens_come_along():
    stream = TokenStream(sparse_tokens(3000), 250, (SITE, OTHER))
    buffer = buffer_of(stream)
    buffer.start()
    for batch in itertools.islice(buffer, 30):
        assert batch[SITE].shape == (100, 24) and batch[OTHER].shape == (100, 16)


class Together:
    """Two workers in one process, one after the other: sums wait until both have spoken."""

    def __init__(self, index):
        self.index, self.count, self.device = index, 2, torch.device("cpu")

    def sum(self, tensor):
        # here the only thing that is summed is sizes, known beforehand: 250 in every batch
        return torch.full_like(tensor, 250)


def test_workers_share_the_batches_of_one():
    alone = buffer_of(numbered(3000))
    alone.start()
    both = []
    for index in range(2):
        stream = numbered(3000)
        buffer = buffer_of(stream)
        buffer.workers = Together(index)
        buffer.start()
        both.append(numbers(buffer, 35))
        assert {number % 2 for number in stream.asked[1:]} == {index}  # each captures its own batches alone
    for whole, *parts in zip(numbers(alone, 35), *both, strict=True):
        assert torch.equal(whole.sort().values, torch.cat(parts).sort().values)


def test_an_empty_stream_is_refused():
    empty = numbered(100)
    empty.tokens = empty.tokens.rows(slice(0, 0))
    with pytest.raises(ValueError, match="found none: add prompts"):
        buffer_of(empty).start()
    with pytest.raises(ValueError, match="above 0"):
        ShuffleBuffer(numbered(100), 0, 10, 1.0, 0)


@pytest.mark.parametrize("held_out", [4, 7, 8])
def test_a_first_batch_that_is_held_out_is_no_measure(held_out):
    """Of 8 pictures a batch: half of the first, nearly all, and all."""
    stream = TokenStream(sparse_tokens(64 * 32))
    keep = torch.arange(32) >= held_out
    part = ShuffleBuffer(Only(stream, keep, stream.sites), 2 * 512 * 24 * 4 * 1.5, 64, 1.0, 0)
    part.start()
    assert part._part == 1  # two batches are in memory, and fit


def test_measuring_prepares_no_batch_that_it_does_not_look_at():
    """A stream that draws pictures embeds the captions of all batches that it is asked for."""
    prepared = []

    class Preparing(TokenStream):
        def batches(self, start=0, step=1):
            prepared.append(len(range(start, len(self), step)))
            return super().batches(start, step)

    stream = Preparing(sparse_tokens(64 * 32))
    ShuffleBuffer(stream, 1e6, 64, 1.0, 0)._measure()
    assert prepared == [1]
