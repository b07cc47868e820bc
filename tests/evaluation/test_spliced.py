import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from fluxtionary.demo.build import new_pipeline
from fluxtionary.dictionaries import Activation, SparseAutoencoder
from fluxtionary.evaluation.spliced import decode, draw_plain, mean_dictionary, measure_plan, recovered
from fluxtionary.residual import Plan, Splice, Tap, Window
from fluxtionary.residual.diffusers_host import attach
from fluxtionary.training.sampling import Sampling, draw_pictures, run_batches

SITE = "double.1.img"
SAMPLING = Sampling(steps=2, batch=2)
PROMPTS, SEEDS = ["a red circle", "a blue ring", "a cross"], [3, 4, 5]


def with_small_vae(pipeline, **scales):
    """The same transformer with an autoencoder that takes a hundredth of the time to draw as little."""
    widths = {f"{part}_block_out_channels": (8, 8, 8, 8) for part in ("encoder", "decoder")}
    vae = AutoencoderTiny(latent_channels=16, num_decoder_blocks=(1, 1, 1, 1), **widths, **scales)
    small = new_pipeline(pipeline.transformer, vae)
    small.set_progress_bar_config(disable=True)
    return small


@pytest.fixture(scope="module")
def flux(random_flux):
    return with_small_vae(random_flux, scaling_factor=1.0, shift_factor=0.0)


@pytest.fixture(scope="module")
def plain(flux):
    return draw_plain(flux, PROMPTS, SEEDS, SAMPLING)


@pytest.fixture(scope="module")
def mean(flux):
    tap = Tap(SITE)
    seen = [
        record.activations.flatten(0, 1)
        for _, run in run_batches(flux, PROMPTS, SEEDS, SAMPLING, Plan([tap]))
        for record in run.records[tap]
    ]
    return torch.cat(seen).mean(0)


def complete(mean, shrink=1.0):
    """As many orthogonal features as dimensions, each with its negative, about `mean`; the code times `shrink`."""
    turned = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(3))).Q
    rows = torch.cat([turned, -turned])
    return SparseAutoencoder(SITE, rows, -rows @ mean, shrink * rows, mean, Activation("topk", 128))


def splice(dictionary, **place):
    return Plan([Splice(SITE, dictionary, **place)])


def hooks(pipeline):
    modules = list(pipeline.transformer.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def test_a_plain_run_is_what_the_pipeline_draws(flux, plain):
    expected = torch.cat([latents for latents, _ in run_batches(flux, PROMPTS, SEEDS, SAMPLING)])
    assert torch.equal(plain.latents, expected)
    assert np.array_equal(plain.pictures, draw_pictures(flux, PROMPTS, SEEDS, SAMPLING))
    assert [call.sigma for call in plain.calls] == [1.0, 0.5, 1.0, 0.5]
    assert [len(call.velocity) for call in plain.calls] == [2, 2, 1, 1]


def test_calls_made_again_give_what_they_gave(flux, plain):
    with torch.inference_mode():
        for call in plain.calls:
            assert torch.equal(flux.transformer(*call.args, **call.kwargs)[0], call.velocity)


def test_nothing_stays_on_the_pipeline(flux, plain):
    before = hooks(flux)
    draw_plain(flux, PROMPTS[:1], SEEDS[:1], SAMPLING)
    assert hooks(flux) == before
    forward = flux.transformer.proj_out.forward
    flux.transformer.proj_out.forward = lambda x: 1 / 0
    try:
        with pytest.raises(ZeroDivisionError):
            draw_plain(flux, PROMPTS[:1], SEEDS[:1], SAMPLING)
        with pytest.raises(ZeroDivisionError):
            measure_plan(flux, splice(mean_dictionary(SITE, torch.zeros(128))), plain)
    finally:
        flux.transformer.proj_out.forward = forward
    assert hooks(flux) == before
    assert "cache_context" not in vars(flux.transformer)


def test_an_empty_plan_changes_nothing(flux, plain):
    errors = measure_plan(flux, Plan(), plain)
    assert errors.velocity == errors.latent == errors.pixel == 0
    assert errors.psnr == math.inf
    assert np.array_equal(errors.pictures, plain.pictures)


def test_a_dictionary_of_all_dimensions_costs_nothing(flux, plain, mean):
    errors = measure_plan(flux, splice(complete(mean)), plain)
    assert errors.velocity < 1e-6 and errors.latent < 1e-6 and errors.pixel < 0.1


def test_the_errors_are_their_formulas(flux, plain, dictionary):
    errors = measure_plan(flux, splice(dictionary), plain)
    power, error = {1.0: 0.0, 0.5: 0.0}, {1.0: 0.0, 0.5: 0.0}
    with attach(flux, splice(dictionary)), torch.inference_mode():
        for call in plain.calls:
            other = flux.transformer(*call.args, **call.kwargs)[0].double()
            error[call.sigma] += float((other - call.velocity.double()).square().sum())
            power[call.sigma] += float(call.velocity.double().square().sum())
    assert dict(errors.velocity_by_sigma) == pytest.approx({s: error[s] / power[s] for s in power})
    assert errors.velocity == pytest.approx(sum(error.values()) / sum(power.values()))
    pictures = draw_pictures(flux, PROMPTS, SEEDS, SAMPLING, splice(dictionary))
    assert np.array_equal(errors.pictures, pictures)
    difference = pictures.astype(float) - plain.pictures
    assert errors.pixel == pytest.approx(np.abs(difference).mean()) and errors.pixel > 0
    assert errors.psnr == pytest.approx(10 * math.log10(255**2 / (difference**2).mean()))
    spliced = torch.cat([z for z, _ in run_batches(flux, PROMPTS, SEEDS, SAMPLING, splice(dictionary))])
    expected = (spliced.double() - plain.latents).square().sum() / plain.latents.double().square().sum()
    assert errors.latent == pytest.approx(float(expected))


def test_the_mean_recovers_nothing_and_everything_all(flux, plain, mean):
    floor = measure_plan(flux, splice(mean_dictionary(SITE, mean)), plain)
    assert floor.velocity > 1e-3
    nothing = recovered(measure_plan(flux, splice(complete(mean, shrink=0.0)), plain), floor)
    assert nothing.velocity == pytest.approx(0, abs=1e-4) and nothing.latent == pytest.approx(0, abs=1e-4)
    assert [share for _, share in nothing.velocity_by_sigma] == pytest.approx([0, 0], abs=1e-4)
    everything = recovered(measure_plan(flux, splice(complete(mean)), plain), floor)
    assert everything.velocity == pytest.approx(1, abs=1e-4) and everything.latent == pytest.approx(1, abs=1e-4)
    assert [sigma for sigma, _ in everything.velocity_by_sigma] == [1.0, 0.5]
    half = recovered(measure_plan(flux, splice(complete(mean, shrink=0.7)), plain), floor)
    assert 0.1 < half.velocity < 0.999


def test_where_the_mean_breaks_nothing_there_is_no_share(flux, plain):
    nothing = measure_plan(flux, Plan(), plain)
    assert math.isnan(recovered(nothing, nothing).velocity)


def test_the_velocity_is_compared_at_the_latents_of_the_plain_run(flux, plain, mean):
    """An error of the first step alone leaves the others at 0, though the picture has gone elsewhere by then."""
    errors = measure_plan(flux, splice(mean_dictionary(SITE, mean), window=Window(end=0.7)), plain)
    (_, first), (_, second) = errors.velocity_by_sigma
    assert first > 1e-3 and second == 0 and errors.latent > 0


def test_a_mean_dictionary_reconstructs_the_mean(mean):
    x = torch.randn(2, 5, 128)
    assert torch.equal(mean_dictionary(SITE, mean).reconstruct(x), mean.expand(2, 5, 128))


def test_decoding_takes_the_scale_and_shift_of_the_autoencoder(flux):
    """Flux's are 0.3611 and 0.1159, those of the demo 1 and 0."""
    other = with_small_vae(flux, scaling_factor=0.36, shift_factor=0.5)
    other.vae.load_state_dict(flux.vae.state_dict())
    ((latents, _),) = run_batches(other, PROMPTS[:2], SEEDS[:2], SAMPLING)
    pictures = draw_pictures(other, PROMPTS[:2], SEEDS[:2], SAMPLING)
    assert np.array_equal(decode(other, latents, SAMPLING), pictures)
    assert not np.array_equal(decode(flux, latents, SAMPLING), pictures)
