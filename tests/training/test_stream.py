"""Streams made of other streams."""

import torch

from fluxtionary.training.stream import Only, mixed

from .streams import SITE, TokenStream, sparse_tokens


def rows(stream):
    return [tuple(row.tolist()) for batch in stream.batches() for row in batch[SITE].x]


def test_a_mixed_stream_has_the_same_tokens_in_batches_of_all_pictures():
    stream = TokenStream(sparse_tokens(2048), size=512)
    other = mixed(stream, SITE)
    assert sorted(rows(other)) == sorted(rows(stream)) and rows(other) != rows(stream)
    assert len(other) == len(stream) == 4
    assert [len(set(batch[SITE].picture.tolist())) for batch in stream.batches()] == [8] * 4
    assert all(len(set(batch[SITE].picture.tolist())) == 32 for batch in other.batches())
    assert rows(mixed(stream, SITE)) == rows(other) != rows(mixed(stream, SITE, seed=1))


def test_each_token_keeps_what_is_known_of_it():
    stream = TokenStream(sparse_tokens(1024))
    (known,) = [{tuple(x.tolist()): int(p) for x, p in zip(stream.tokens.x, stream.tokens.picture, strict=True)}]
    for batch in mixed(stream, SITE).batches():
        for x, picture in zip(batch[SITE].x, batch[SITE].picture, strict=True):
            assert known[tuple(x.tolist())] == int(picture)
    assert torch.equal(torch.cat([b[SITE].sigma for b in mixed(stream, SITE).batches()]), torch.full((1024,), 0.5))


def test_a_part_of_a_stream_says_which():
    stream = TokenStream(sparse_tokens(64 * 8))
    headers = []
    for first in (0, 2, 3):
        headers.append(Only(stream, torch.arange(8) >= first, stream.sites).header)
    assert headers[0] == stream.header
    assert headers[1]["pictures"] == "6 of 8" and headers[1]["pictures_sha256"] != headers[2]["pictures_sha256"]
