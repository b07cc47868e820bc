import pytest
import torch

from fluxtionary.dictionaries import FeatureError, SparseAutoencoder
from fluxtionary.interpretation.output_score import OutputScoring, output_scores
from fluxtionary.residual import Add, Plan, Site
from fluxtionary.residual.diffusers_host import attach, neurons
from fluxtionary.training.sampling import Sampling

PROMPTS, SEEDS, SAMPLING = ["a red circle", "a blue ring"], [1, 2], Sampling(steps=2)


def scores(pipeline, dictionary, features, **options):
    config = OutputScoring(**{"moments": 1, "pictures": 2, "batch": 3, **options})
    return dict(output_scores(pipeline, dictionary, features, PROMPTS, SEEDS, SAMPLING, config))


def test_is_the_relative_change_of_the_velocity_by_a_unit(random_flux, dictionary):
    """Against the pipeline itself under a plan, step by step."""
    features = [4, 0, 17, 30]
    found = scores(random_flux, dictionary, features)
    assert list(found) == features
    for feature in (0, 30):
        relative = []
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True):
            plain, moved = (velocities(random_flux, prompt, seed, plan) for plan in (None, added(dictionary, feature)))
            relative.append(float((moved - plain).square().mean().sqrt() / plain.square().mean().sqrt()))
        assert found[feature] == pytest.approx(sum(relative) / 2, rel=1e-3)


def added(dictionary, feature):
    site = Site.parse(dictionary.site)
    return Plan([Add(site, dictionary.direction(feature), 1.0, dictionary.scale)])


def velocities(pipeline, prompt, seed, plan):
    """What the model predicts in the second step, reached without any plan."""
    seen, calls = [], []

    def look(module, args, given, output):
        calls.append(given)
        if len(calls) == 2:
            handle.remove()
            with attach(pipeline, plan or Plan()):
                seen.append(module(**given)[0])

    handle = pipeline.transformer.register_forward_hook(look, with_kwargs=True)
    with torch.inference_mode():
        pipeline(
            prompt=[prompt], height=128, width=128, num_inference_steps=2, max_sequence_length=16,
            generator=[torch.Generator().manual_seed(seed)], output_type="latent",
        )  # fmt: skip
    return seen[0].float()


def test_what_adds_nothing_scores_0(random_flux, dictionary):
    decoder = dictionary.decoder.clone()
    decoder[5] = 0
    silent = SparseAutoencoder(
        dictionary.site, dictionary.encoder, dictionary.encoder_bias, decoder, dictionary.decoder_bias,
        dictionary.activation, scale=dictionary.scale,
    )  # fmt: skip
    found = scores(random_flux, silent, [5, 6], pictures=1)
    assert found[5] < 1e-5 < 0.01 < found[6]


def test_neurons_are_added_where_they_write(random_flux):
    """Their file knows no scale of the residual stream: it is measured."""
    found = scores(random_flux, neurons(random_flux.transformer, "double.1.img.mlp", 8), [0, 100], pictures=1)
    assert all(0.001 < value < 100 for value in found.values()) and found[0] != found[100]


def test_a_feature_that_is_not_there_is_refused(random_flux, dictionary):
    with pytest.raises(FeatureError, match="feature 48 is out of range"):
        scores(random_flux, dictionary, [0, 48])
