import logging

import pytest
import torch

from fluxtionary.residual import Site
from fluxtionary.residual.shards import ShardError, Shards
from fluxtionary.residual.tokens import Tokens
from fluxtionary.training.shards import ShardStream, write_shards

IMG, TXT = Site.parse("double.1.img"), Site.parse("double.1.txt")


class Pictures:
    """A stream of drawn numbers that may fail at a batch, and counts what it was asked for."""

    sites = (IMG, TXT)
    grid = (2, 4)
    model = {"family": "flux1", "name": "test"}  # noqa: RUF012
    header = {"steps": 1}  # noqa: RUF012

    def __init__(self, count=6, fail_at=None, dtype=torch.float16, ends_at=None):
        self.count, self.fail_at, self.dtype, self.ends_at = count, fail_at, dtype, ends_at
        self.prompts = [f"prompt {i}" for i in range(6)]
        self.seeds = list(range(6))
        self.asked = []

    def __len__(self):
        return self.count

    def batches(self, start=0, step=1):
        for i in range(start, self.count, step):
            if i == self.ends_at:
                return
            if i == self.fail_at:
                raise KeyboardInterrupt
            self.asked.append(i)
            generator = torch.Generator().manual_seed(i)
            yield {
                site: Tokens(
                    torch.randn(n, 5, generator=generator).to(self.dtype),
                    torch.full((n,), 0.5),
                    torch.arange(n),
                    torch.full((n,), i),
                )
                for site, n in ((IMG, 8), (TXT, i + 1))
            }


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(a, b) and a.dtype == b.dtype
        for site in first
        for a, b in zip(first[site], second[site], strict=True)
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_stream_what_was_captured(tmp_path, caplog):
    live = Pictures()
    shards = write_shards(live, tmp_path, 16, progress=False)
    assert (shards.complete, shards.dtype, len(shards.shards)) == (True, torch.float16, 3)
    stream = ShardStream(tmp_path)
    assert (stream.sites, stream.grid, stream.model, stream.header) == (live.sites, live.grid, live.model, live.header)
    assert (list(stream.prompts), list(stream.seeds), len(stream)) == (live.prompts, live.seeds, 6)
    for start, step in ((0, 1), (1, 2), (5, 1), (6, 1)):
        pairs = list(zip(stream.batches(start, step), live.batches(start, step), strict=True))
        assert len(pairs) == len(range(start, 6, step)) and all(same(*pair) for pair in pairs)
    assert not caplog.records


def test_a_capture_interrupted_goes_on_to_the_same_bytes(tmp_path, caplog):
    write_shards(Pictures(), tmp_path / "whole", 16, progress=False)
    with pytest.raises(KeyboardInterrupt):
        write_shards(Pictures(fail_at=5), tmp_path / "cut", 16, progress=False)
    with caplog.at_level(logging.WARNING):
        stream = ShardStream(tmp_path / "cut")
    assert "only 4 of 6 batches are captured" in caplog.text
    assert len(list(stream.batches())) == len(stream) == 4
    again = Pictures()
    write_shards(again, tmp_path / "cut", 16, progress=False)
    assert again.asked == [4, 5]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_another_stream_does_not_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_shards(Pictures(fail_at=3), tmp_path, 16, progress=False)
    with pytest.raises(ShardError, match="dtype = 'bfloat16', found dtype = 'float16'"):
        write_shards(Pictures(dtype=torch.bfloat16), tmp_path, 16, progress=False)
    with pytest.raises(ShardError, match="batches = 5, found batches = 6"):
        write_shards(Pictures(count=5), tmp_path, 16, progress=False)
    assert Shards(tmp_path).done == 2


def test_what_is_complete_is_not_written_again(tmp_path):
    write_shards(Pictures(), tmp_path, 16, progress=False)
    with pytest.raises(ShardError, match="less than the 6 batches of the stream, found 6"):
        write_shards(Pictures(), tmp_path, 16, progress=False)


def test_a_stream_that_ends_early_is_an_error_and_resumes(tmp_path):
    with pytest.raises(ShardError, match="6 batches from the stream, found 3"):
        write_shards(Pictures(ends_at=3), tmp_path, 16, progress=False)
    assert write_shards(Pictures(), tmp_path, 16, progress=False).complete


def test_activations_are_cast_when_asked(tmp_path):
    shards = write_shards(Pictures(dtype=torch.float32), tmp_path, 16, dtype=torch.bfloat16, progress=False)
    first = next(Pictures(dtype=torch.float32).batches())
    assert torch.equal(shards.batch(0)[IMG].x, first[IMG].x.bfloat16())


def test_sites_of_two_types_need_one_to_be_written(tmp_path):
    class Mixed(Pictures):
        def batches(self, start=0, step=1):
            for batch in super().batches(start, step):
                yield batch | {TXT: batch[TXT]._replace(x=batch[TXT].x.float())}

    with pytest.raises(ShardError, match=r"torch.float16, torch.float32; give the dtype"):
        write_shards(Mixed(), tmp_path, 16, progress=False)
    assert write_shards(Mixed(), tmp_path, 16, dtype=torch.float32, progress=False).complete


def test_progress_shows_tokens_a_second(tmp_path, capsys):
    write_shards(Pictures(), tmp_path, 16)
    shown = capsys.readouterr().err
    assert "6/6" in shown and "tokens/s" in shown
