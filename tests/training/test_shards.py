import logging

import pytest
import torch

from fluxtionary.residual import Site
from fluxtionary.residual.shards import ShardError, Shards
from fluxtionary.residual.tokens import Tokens
from fluxtionary.training.shards import JoinedStream, ShardStream, shard_stream, write_shards

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


class Others(Pictures):
    """Another capture: of other pictures, on a token grid of another shape."""

    grid = (3, 2)
    header = {"steps": 4, "host": "comfyui"}  # noqa: RUF012

    def __init__(self, count=2, **changes):
        super().__init__(count)
        self.prompts, self.seeds = ["other"] * 3, [7] * 3
        self.changes = changes
        for name, value in changes.items():
            setattr(self, name, value)

    def batches(self, start=0, step=1):
        for batch in super().batches(start, step):
            yield {site: tokens.rows(slice(0, 6)) for site, tokens in batch.items() if site in self.sites}


@pytest.fixture
def captures(tmp_path):
    for name, stream in (("run-00001", Pictures()), ("run-00002", Others()), ("run-00003", Pictures(count=1))):
        write_shards(stream, tmp_path / "runs" / name, 16, progress=False)
    (tmp_path / "runs" / "run-00004").mkdir()  # a run that has only just begun
    return tmp_path / "runs"


def test_a_joined_stream_equals_its_parts(captures):
    joined = shard_stream([captures])
    parts = [ShardStream(captures / f"run-0000{i}") for i in (1, 2, 3)]
    assert isinstance(joined, JoinedStream) and len(joined) == 6 + 2 + 1
    assert joined.sites == (IMG, TXT) and joined.model == parts[0].model
    assert list(joined.prompts) == [prompt for part in parts for prompt in part.prompts]
    assert list(joined.seeds) == [seed for part in parts for seed in part.seeds]
    expected = [(part, batch) for part in parts for batch in part.batches()]
    for start, step in ((0, 1), (1, 2), (5, 3), (8, 1), (9, 1), (2, 9)):
        found = list(joined.batches(start, step))
        assert len(found) == len(expected[start::step])
        for batch, (part, own) in zip(found, expected[start::step], strict=True):
            for site in (IMG, TXT):
                assert torch.equal(batch[site].x, own[site].x) and torch.equal(batch[site].sigma, own[site].sigma)
                for mine, its in zip(batch[site].picture.tolist(), own[site].picture.tolist(), strict=True):
                    assert (joined.prompts[mine], joined.seeds[mine]) == (part.prompts[its], part.seeds[its])


def test_a_joined_grid_keeps_rows_and_columns(captures):
    joined = shard_stream([captures])
    assert joined.grid == (3, 4)
    wide, *_, tall, _, _ = joined.batches()
    assert wide[IMG].position.tolist() == list(range(8))
    assert tall[IMG].position.tolist() == [0, 1, 4, 5, 8, 9]
    assert tall[TXT].position.tolist() == list(range(len(tall[TXT].x)))


def test_a_joined_header_says_what_all_say_and_what_they_do_not(captures):
    header = shard_stream([captures]).header
    assert {name: header[name] for name in header if name != "prompts_sha256"} == {
        "captures": 3,
        "differ": ["steps", "host"],
    }
    same = shard_stream([captures / "run-00001", captures / "run-00003"]).header
    assert same["steps"] == 1 and same["captures"] == 2 and "differ" not in same


def test_folders_and_folders_of_folders_each_once(captures, tmp_path):
    write_shards(Pictures(), tmp_path / "more", 16, progress=False)
    assert len(shard_stream([captures, tmp_path / "more", captures / "run-00002"])) == 9 + 6
    assert isinstance(shard_stream([captures / "run-00001"]), ShardStream)
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(ShardError, match=f"{folder}: expected a folder of activation shards"):
            shard_stream([captures, tmp_path / folder])


def test_an_incomplete_part_is_read_up_to_where_it_goes(captures, caplog):
    with pytest.raises(KeyboardInterrupt):
        write_shards(Pictures(fail_at=5), captures / "run-00009", 16, progress=False)
    with caplog.at_level(logging.WARNING):
        joined = shard_stream([captures])
    assert "run-00009: only 4 of 6 batches are captured" in caplog.text
    assert len(joined) == len(list(joined.batches())) == 9 + 4


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (Others(sites=(IMG,)), r"'double.1.img, double.1.txt', found 'double.1.img'"),
        (Others(dtype=torch.float32), "the dtype of .*run-00001, 'float16', found 'float32'"),
        (Others(model={"family": "flux1", "name": "b"}), "the model.name of .*run-00001, 'test', found 'b'"),
    ],
)
def test_captures_that_do_not_go_together_are_both_named(captures, stream, words):
    write_shards(stream, captures / "run-00005", 16, progress=False)
    with pytest.raises(ShardError, match=f"run-00005: expected .*{words}; give captures of the same sites"):
        shard_stream([captures])


def test_captures_of_other_widths_do_not_go_together(captures):
    class Wide(Pictures):
        def batches(self, start=0, step=1):
            for batch in super().batches(start, step):
                yield {site: tokens._replace(x=tokens.x.repeat(1, 2)) for site, tokens in batch.items()}

    write_shards(Wide(), captures / "run-00005", 16, progress=False)
    with pytest.raises(ShardError, match="the d_model.double.1.img of .*run-00001, 5, found 10"):
        shard_stream([captures])


def test_damaged_numbers_are_found_before_they_are_used(tmp_path):
    write_shards(Pictures(), tmp_path / "s", 20, progress=False)
    damaged = sorted((tmp_path / "s").glob("*img*.safetensors"))[1]
    data = bytearray(damaged.read_bytes())
    data[-20] ^= 1  # a plausible number still
    damaged.write_bytes(data)
    write_shards(Pictures(), tmp_path / "whole", 20, progress=False)
    for folders in (["s"], ["whole", "s"]):
        batches = shard_stream([tmp_path / name for name in folders]).batches()
        next(batches)  # the first shard is whole
        with pytest.raises(ShardError, match=f"damaged: {damaged.name}"):
            list(batches)


def test_another_capture_is_said_before_anything_is_captured(tmp_path):
    """Also where it is complete, or has other batches."""
    write_shards(Pictures(), tmp_path, 20, progress=False)
    other = Pictures(count=3)
    other.header = {"steps": 2}
    with pytest.raises(ShardError, match=r"header\.steps = 2, found header\.steps = 1"):
        write_shards(other, tmp_path, 20, progress=False)
    assert other.asked == []
