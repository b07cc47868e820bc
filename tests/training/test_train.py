"""The run from a stream to dictionaries: what it carries, and that it goes on exactly where it was cut off."""

import json
import signal

import pytest
import torch

from fluxtionary.dictionaries import Normalization
from fluxtionary.dictionaries.metrics import CellMeans, measure_dictionary
from fluxtionary.residual import Site
from fluxtionary.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from fluxtionary.training.sae import SAETraining, TrainingError
from fluxtionary.training.train import Records, Wanted, train_saes
from fluxtionary.training.trainer import Trainer

from .streams import SITE, TokenStream, sparse_tokens

OTHER = Site.parse("double.0.txt")


def small(**options):
    defaults = {"features": 64, "k": 4, "tokens": 40_000, "batch": 256, "learning_rate": 3e-3, "dead_after": 5_000}
    # room for 4,000 tokens: parts of four batches each
    return SAETraining(**(defaults | {"buffer": 4000 * 116 / 2**30, "aux_k": 16} | options))


def stream_of(count=12_000, sites=(SITE,)):
    return TokenStream(sparse_tokens(count), 500, sites)


def train(config=None, records=Records(), stream=None):  # noqa: B008
    return train_saes(stream or stream_of(), {"sae": Wanted(SITE, config or small())}, records)["sae"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("plain") / "log.jsonl"


@pytest.fixture(scope="module")
def plain(log):
    """What comes of `small` settings, and its log."""
    return train(records=Records(log=log))


def same(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias", "natural")
    )


def test_it_learns_sparse_structure_that_pca_cannot():
    from fluxtionary.evaluation.baselines import pca_fvu

    dictionary = train(small(tokens=200_000), stream=stream_of(40_000))
    held_out, tokens = sparse_tokens(4000, seed=1), sparse_tokens(20_000)
    normalization = Normalization.fit(tokens.x)
    cells = CellMeans(tokens.x, tokens.sigma, tokens.position)
    found = measure_dictionary(dictionary, normalization, cells, held_out.x, held_out.sigma, held_out.position)
    assert found.fvu < 0.25
    assert found.fvu < 0.5 * pca_fvu(tokens.x, held_out.x, normalization, 4)
    assert found.dead < 0.1 and found.l0 <= 4


def test_the_same_seed_gives_the_same_dictionary(plain):
    assert same(plain, train())
    assert not torch.equal(plain.encoder, train(small(seed=1)).encoder)


def test_the_dictionary_carries_where_it_comes_from(plain):
    dictionary, about = plain, plain.provenance
    assert about.model == {"family": "flux1", "name": "made up"}
    assert about.capture["n_tokens"] >= 12_000 and about.capture["steps"] == 1
    assert about.training["tokens"] == 40_000 and about.training["kind"] == "topk"
    assert dictionary.site == "double.1.img" and dictionary.scale is not None
    assert dictionary.natural.shape == (64,) and (dictionary.natural > 0).sum() > 32


def test_natural_values_are_in_units_of_strength(plain):
    dictionary, x = plain, sparse_tokens(12_000).x
    code = dictionary.encode(x)
    feature = int(torch.bincount(code.indices[code.values > 0]).argmax())
    value = code.coefficient(feature)
    expected = value[value > 0].mean() * dictionary.direction(feature).norm() / dictionary.scale.at(0.5)
    assert float(dictionary.natural[feature]) == pytest.approx(float(expected), rel=0.05)


def test_several_dictionaries_are_each_as_if_alone():
    wanted = {
        "small": Wanted(SITE, small()),
        "wide": Wanted(SITE, small(features=96, k=2)),
        "other": Wanted(OTHER, small(kind="batchtopk")),
    }
    found = train_saes(stream_of(sites=(SITE, OTHER)), wanted)
    assert [d.d_model for d in found.values()] == [24, 24, 16] and found["wide"].n_features == 96
    alone = train_saes(stream_of(sites=(SITE, OTHER)), {"small": wanted["small"]})["small"]
    assert same(found["small"], alone)
    with pytest.raises(ValueError, match="share batch"):
        train_saes(stream_of(), {"a": Wanted(SITE, small()), "b": Wanted(SITE, small(batch=64))})


class CutError(Exception):
    pass


def cut_after(monkeypatch, steps, error=CutError):
    original, done = Trainer.step, []

    def step(self, x, measure=False):
        done.append(1)
        if len(done) > steps:
            raise error
        return original(self, x, measure)

    monkeypatch.setattr(Trainer, "step", step)


@pytest.fixture(scope="module", params=["topk", "jumprelu"])
def never_cut_off(request, tmp_path_factory):
    """Settings of each kind, what comes of them, and the log."""
    config, log = small(kind=request.param, normalize="pca"), tmp_path_factory.mktemp("whole") / "log.jsonl"
    return config, train(config, Records(log=log)), log


@pytest.mark.parametrize("steps", [1, 50, 101])
def test_it_goes_on_exactly_where_it_was_cut_off(never_cut_off, tmp_path, monkeypatch, steps):
    config, whole, whole_log = never_cut_off
    records = Records(tmp_path / "run.checkpoint", 0.0, True, tmp_path / "log.jsonl")
    with monkeypatch.context() as patch:
        cut_after(patch, steps)
        with pytest.raises(CutError):
            train(config, records)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 150, "tok')  # what a kill leaves of a line
    stream = stream_of()
    found = train(config, records, stream)
    assert same(found, whole)
    assert found.provenance.capture["n_tokens"] == whole.provenance.capture["n_tokens"]
    assert len(stream.asked) < 40 or steps < 101  # only what it needs is captured again
    assert (tmp_path / "log.jsonl").read_text() == whole_log.read_text()


def test_an_interruption_is_heard_after_the_step_and_loses_nothing(plain, tmp_path, monkeypatch):
    records = Records(tmp_path / "run.checkpoint", 1e9, True)
    original = Trainer.step

    def step(self, x, measure=False):
        if self.number == 7:
            signal.raise_signal(signal.SIGINT)
        return original(self, x, measure)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt, match="--resume goes on from step 8 of 156"):
            train(records=records)
    assert int(load_checkpoint(records.checkpoint)[0]["sae/number"]) == 8
    assert same(train(records=records), plain)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": small(k=5)}, r"dictionaries\.sae\.1\.k is 4 there, and 5 here"),
        ({"stream": stream_of(11_000)}, "pictures is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch, change, words):
    records = Records(tmp_path / "run.checkpoint", 0.0, True)
    cut_after(monkeypatch, 3)
    with pytest.raises(CutError):
        train(records=records)
    with pytest.raises(CheckpointError, match=words):
        train(records=records, **change)


def test_the_log_has_the_figures(plain, log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 157, 20), 156]
    assert lines[-1]["tokens"] == 156 * 256
    assert set(lines[0]["sae"]) == {"loss", "fvu", "l0", "dead"}
    assert lines[-1]["sae"]["fvu"] < lines[0]["sae"]["fvu"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "run.checkpoint"
    save_checkpoint(path, {"a": torch.ones(3)}, {"step": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fluxtionary.training.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device.*--resume"):
        save_checkpoint(path, {"a": torch.zeros(3)}, {"step": 2})
    assert load_checkpoint(path)[1] == {"step": 1} and [p.name for p in tmp_path.iterdir()] == ["run.checkpoint"]


def test_what_is_no_checkpoint_is_refused(tmp_path):
    for content in (b"", b"nonsense" * 10):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(CheckpointError, match="expected a checkpoint"):
            load_checkpoint(tmp_path / "x")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(tmp_path / "x" / "y", {}, {})


def test_a_loss_that_is_no_number_ends_the_training():
    with pytest.raises(TrainingError, match=r"finite loss, found (nan|inf) .*lower --sae.learning-rate"):
        train(config=small(learning_rate=1e30))
