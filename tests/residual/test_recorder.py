import pytest
import torch

from fluxtionary.residual import Plan, PlanError, Row, Run, Site, Tap
from fluxtionary.residual.moment import Moment
from fluxtionary.residual.recorder import About, Recorder, new_run, whole_positions
from fluxtionary.residual.shards import ShardError, Shards

IMG, TXT = Site.parse("double.1.img"), Site.parse("single.0.txt")
ABOUT = About(
    sites=(IMG, TXT),
    dtype=torch.float32,
    share=1.0,
    model={"family": "flux1", "name": ""},
    header={"host": "test"},
    prompts=["a", "b"],
    seeds=[2**64 - 1, 2**64 - 1],
    grid=(4, 6),
)
BOTH = (Row("cond", 0), Row("cond", 1), Row("uncond", 0), Row("uncond", 1))


def activations(site, call, rows=4, tokens=24):
    generator = torch.Generator().manual_seed(100 * call + (site == TXT))
    return torch.randn(rows, tokens if site == IMG else 3, 5, generator=generator)


def recorded(folder, calls, rows="cond", about=ABOUT, moments=None):
    """Run taps over some calls, each given by the sites that it reaches."""
    recorder = Recorder(folder, about)
    run = Run(Plan(Tap(site, rows=rows, receive=recorder.receive) for site in about.sites))
    for number, sites in enumerate(calls):
        moment = moments[number] if moments else Moment(1 - number / 8, BOTH, (4, 6))
        tokens = moment.grid[0] * moment.grid[1]
        for site in sites:
            run.visit(site, activations(site, number, len(moment.rows), tokens), moment)
    return recorder


@pytest.fixture
def folder(tmp_path):
    return new_run(tmp_path / "runs")


def test_each_call_is_a_batch_with_the_rows_asked_for(folder):
    recorder = recorded(folder, [(IMG, TXT)] * 3)
    assert recorder.finish() and recorder.tokens == {IMG: 3 * 48, TXT: 3 * 6}
    shards = Shards(folder)
    shards.verify()
    assert (shards.complete, shards.batches, shards.grid) == (True, 3, (4, 6))
    assert shards.seeds == (2**64 - 1,) * 2
    for i in range(3):
        batch = shards.batch(i)
        for site, count in ((IMG, 24), (TXT, 3)):
            assert torch.equal(batch[site].x, activations(site, i)[:2].flatten(0, 1))
            assert batch[site].position.tolist() == [*range(count)] * 2
            assert batch[site].picture.tolist() == [0] * count + [1] * count
            assert set(batch[site].sigma.tolist()) == {1 - i / 8}


def test_rows_of_the_negative_prompt_are_of_the_same_pictures(folder):
    assert recorded(folder, [(IMG, TXT)], rows="both").finish()
    assert Shards(folder).batch(0)[TXT].picture.tolist() == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3


def test_a_share_is_drawn_by_the_seed(tmp_path):
    def one(number, seed):
        folder = new_run(tmp_path / "runs")
        about = ABOUT.__class__(**{**vars(ABOUT), "share": 0.25, "seeds": [seed, seed]})
        assert recorded(folder, [(IMG, TXT)] * 20, about=about).finish()
        shards = Shards(folder)
        return [shards.batch(i)[IMG] for i in range(20)]

    first, again, other = one(1, 3), one(2, 3), one(3, 4)
    assert all(torch.equal(a.x, b.x) and torch.equal(a.position, b.position) for a, b in zip(first, again, strict=True))
    assert not all(len(a.x) == len(b.x) for a, b in zip(first, other, strict=True))
    assert 0.2 < sum(len(tokens.x) for tokens in first) / (20 * 48) < 0.3
    for i, tokens in enumerate(first):
        assert torch.equal(tokens.x, activations(IMG, i)[tokens.picture, tokens.position])


def test_calls_that_a_cache_cut_short_are_left_out(folder):
    recorder = recorded(folder, [(IMG, TXT), (IMG,), (IMG, TXT), (IMG,)])
    assert recorder.finish() and recorder.partial == 2
    assert [float(Shards(folder).batch(i)[IMG].sigma[0]) for i in range(2)] == [1, 0.75]


def test_a_run_in_which_nothing_was_seen_leaves_no_folder(folder):
    assert not recorded(folder, [(IMG,)]).finish()
    assert not folder.exists() and folder.parent.exists()


@pytest.mark.parametrize("calls", [0, 2])
def test_a_discarded_run_leaves_no_folder(folder, calls):
    recorder = recorded(folder, [(IMG, TXT)] * calls)
    recorder.discard()
    recorder.discard()
    assert not folder.exists()


def test_areas_lie_in_the_whole_picture(folder):
    corners = (Row("cond", 0, (0.0, 0.0, 0.5, 0.5)), Row("cond", 0, (0.5, 0.5, 0.5, 0.5)))
    assert recorded(folder, [(IMG, TXT)], moments=[Moment(1.0, corners, (2, 3))]).finish()
    assert Shards(folder).batch(0)[IMG].position.tolist() == [0, 1, 2, 6, 7, 8, 15, 16, 17, 21, 22, 23]


@pytest.mark.parametrize(
    ("grid", "area", "whole", "expected"),
    [
        ((1, 2), (0, 0, 1, 1), (2, 4), [0, 1]),  # a tile
        ((2, 2), (8 / 9, 0, 1 / 9, 1), (4, 2), [4, 5, 6, 7]),  # the rounding of an odd size never leads outside
        ((1, 1), (0.0, 16 / 17, 1.0, 1 / 17), (1, 9), [8]),
    ],
)
def test_positions_in_the_whole_picture(grid, area, whole, expected):
    assert whole_positions(grid, area, whole).tolist() == expected


def test_more_tokens_than_the_picture_has_are_refused():
    with pytest.raises(PlanError, match="called on 4 by 8 tokens in a run on 4 by 4"):
        whole_positions((4, 8), (0, 0, 1, 1), (4, 4))


def test_runs_are_numbered_on(tmp_path):
    for name in ("run-00001", "run-00007", "run-x", "notes"):
        (tmp_path / name).mkdir()
    assert [new_run(tmp_path).name for _ in range(2)] == ["run-00008", "run-00009"]
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ShardError, match=r"a folder of runs, found a capture.*another folder"):
        new_run(tmp_path)
