"""What the commands that make dictionaries do with what they cannot use; nothing that was made is lost."""

import pytest

from fluxtionary.commands.make import BuildItda, Run, TrainSae
from fluxtionary.commands.output import OutputError
from fluxtionary.commands.source import Source
from fluxtionary.dictionaries import load_dictionary
from fluxtionary.training.checkpoint import CheckpointError
from fluxtionary.training.itda import ITDABuild
from fluxtionary.training.prompts import split_prompts
from fluxtionary.training.sae import SAETraining, TrainingError
from fluxtionary.training.shards import write_shards

from ..training.streams import TokenStream, sparse_tokens

SMALL = SAETraining(features=32, k=4, tokens=4096, batch=256, buffer=0.001)


def shards(folder, pictures=16, keep=slice(None)):
    """A capture of made-up activations; `keep` are the tokens that are left of it."""
    stream = TokenStream(sparse_tokens(64 * pictures).rows(keep), size=64)
    stream.prompts, stream.seeds = [f"picture {i}" for i in range(pictures)], list(range(pictures))
    write_shards(stream, folder, 256, progress=False)
    return Source(shards=(folder,))


def test_a_dictionary_that_cannot_be_measured_is_written(tmp_path, capsys):
    """Everything that is held out may have no token."""
    prompts = [f"picture {i}" for i in range(16)]
    first_held_out = min(map(prompts.index, split_prompts(prompts, 0.3)[1]))
    source = shards(tmp_path / "s", keep=slice(0, 64 * first_held_out))
    TrainSae(tmp_path / "x.safetensors", sae=SMALL, keep=Run(held_out=0.3), source=source).run()
    assert load_dictionary(tmp_path / "x.safetensors").n_features == 32
    assert "is written, but without figures: there is nothing to measure" in capsys.readouterr().err


def test_another_share_held_out_is_another_run(tmp_path, monkeypatch):
    """Else what it is measured on at the end would be what it was trained on before."""
    from fluxtionary.training.trainer import Trainer

    source, step = shards(tmp_path / "s"), Trainer.step

    def cut(trainer, x, measure=False):
        if trainer.number == 3:
            raise KeyboardInterrupt
        return step(trainer, x, measure)

    run = {"out": tmp_path / "x.safetensors", "sae": SMALL, "source": source}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", cut)
        with pytest.raises(KeyboardInterrupt):
            TrainSae(keep=Run(held_out=0.1, checkpoint_seconds=0), **run).run()
    with pytest.raises(CheckpointError, match="capture.pictures is"):
        TrainSae(keep=Run(held_out=0.5, resume=True), **run).run()
    TrainSae(keep=Run(held_out=0.1, resume=True), **run).run()


def test_runs_whose_names_differ_after_a_dot_have_checkpoints_of_their_own(tmp_path):
    for name in ("st.v1.checkpoint", "st.v1.log.jsonl"):
        (tmp_path / name).write_text("of another run")
    TrainSae(tmp_path / "st.v2", sae=SMALL, keep=Run(held_out=0, overwrite=True), source=shards(tmp_path / "s")).run()
    assert (tmp_path / "st.v2.log.jsonl").exists()
    assert (tmp_path / "st.v1.checkpoint").read_text() == (tmp_path / "st.v1.log.jsonl").read_text() == "of another run"


@pytest.mark.parametrize("options", [{"held_out": 1.0}, {"held_out": -0.1}, {"measured": 1}])
def test_shares_and_counts_that_are_none(options):
    with pytest.raises(OutputError, match=r"found (1.0|-0.1|1)"):
        Run(**options)


@pytest.mark.parametrize("options", [{"k": 40, "features": 32}, {"clip": -1.0}, {"learning_rate": 0.0}])
def test_settings_that_no_training_can_have(options):
    with pytest.raises(TrainingError, match="found"):
        SAETraining(**options)


def test_a_threshold_that_no_token_reaches(tmp_path):
    build = ITDABuild(atoms=16, k=4, threshold=50.0, reference=256)
    with pytest.raises(TrainingError, match="lower the threshold"):
        BuildItda(tmp_path / "i.safetensors", itda=build, keep=Run(held_out=0), source=shards(tmp_path / "s")).run()


def test_a_demo_caption_s_pictures_have_seeds_of_their_own():
    one, (many, _) = Source().captions()[0], Source(pictures=3).captions()
    assert many.prompts[:6:3] == one.prompts[:2] and many.seeds[::3] == one.seeds
    assert len(set(many.seeds)) == len(many.seeds) == 3 * len(one.seeds)
    assert not set(many.seeds) & set(Source(pictures=3).captions()[1].seeds)
