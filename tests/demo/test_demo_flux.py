"""The shipped demo Flux is what it says: a Flux pipeline as any other, small, and true to its captions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from fluxtionary.demo import files
from fluxtionary.demo.captions import WORDS
from fluxtionary.demo.scenes import FACTORS
from fluxtionary.dictionaries import load_dictionary
from fluxtionary.evaluation.cases import adherence, judge, sample_cases
from fluxtionary.training.models import ModelError, load_pipeline
from fluxtionary.training.sampling import Sampling, check_size


def test_flux_pipeline_loads_it_like_any_flux(draw):
    pipeline = FluxPipeline.from_pretrained(files.PIPELINE)
    assert isinstance(pipeline.transformer, FluxTransformer2DModel)
    config = pipeline.transformer.config
    assert config.num_layers >= 2 and config.num_single_layers >= 4
    assert pipeline.vae.config.latent_channels == 16 and pipeline.vae_scale_factor == 8
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "a large red circle", height=128, width=128, num_inference_steps=4, max_sequence_length=16, output_type="np"
    ).images
    assert picture.shape == (1, 128, 128, 3)


def test_all_weights_fit_in_24_megabytes():
    weights = [path for path in files.MODELS.rglob("*") if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in weights) <= 24_000_000


def test_the_small_one_differs_in_its_transformer_alone():
    base, small = load_pipeline("demo"), load_pipeline("demo-small")
    count = [sum(p.numel() for p in pipeline.transformer.parameters()) for pipeline in (base, small)]
    assert count[1] < count[0] / 2
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            base.text_encoder_2.state_dict().values(), small.text_encoder_2.state_dict().values(), strict=True
        )
    )
    assert all(p.dtype == torch.float32 for p in small.transformer.parameters())


@pytest.mark.parametrize(("model", "always", "least"), [("demo", (), 0.9), ("demo-small", tuple(FACTORS), 0.9)])
def test_it_draws_what_captions_say(model, always, least):
    found = adherence(judge(load_pipeline(model), sample_cases(24, 21, "test", always=always), Sampling()))
    assert min(found[name] for name in ("color", "background", "position")) >= least, found


def test_negative_prompts_work(demo_flux):
    with torch.inference_mode():
        pictures = [
            demo_flux(
                "a circle",
                negative_prompt=negative,
                true_cfg_scale=2.0,
                height=128,
                width=128,
                num_inference_steps=4,
                max_sequence_length=16,
                generator=torch.Generator().manual_seed(0),
                output_type="np",
            ).images
            for negative in (None, "a navy background")
        ]
    assert np.abs(pictures[0] - pictures[1]).max() > 0.1


def test_the_tokenizer_knows_every_word_and_pads_to_one_length(demo_flux):
    for tokenizer in (demo_flux.tokenizer, demo_flux.tokenizer_2):
        ids = tokenizer([" ".join(WORDS[:10]), "Ring, RED!"], padding="max_length", max_length=16).input_ids
        assert [len(row) for row in ids] == [16, 16]
        assert files.VOCABULARY[files.UNKNOWN] not in {*ids[0], *ids[1]}
        assert files.VOCABULARY["ring"] in ids[1] and files.VOCABULARY["red"] in ids[1]


def test_the_committed_dictionary_fits_it(demo_flux):
    dictionary = load_dictionary(files.DICTIONARY)
    assert dictionary.d_model == demo_flux.transformer.inner_dim
    assert dictionary.scale is not None and dictionary.natural is not None


def test_training_times_are_recorded():
    record = json.loads((files.MODELS / "training.json").read_text())
    assert set(record["seconds"]) == {"vae", "latents", "base", "more", "small"}
    assert min(record["seconds"].values()) > 60


def test_other_sizes_and_models_are_refused_with_a_hint(tmp_path):
    with pytest.raises(ModelError, match="128x128 pictures only, found 256x128"):
        check_size("demo", Sampling(width=256))
    check_size("black-forest-labs/FLUX.1-schnell", Sampling(width=256))
    with pytest.raises(ModelError, match="demo, demo-small, a folder"):
        load_pipeline(str(Path(tmp_path) / "nothing"))
