import numpy as np
import pytest
import torch

from fluxtionary.demo.scenes import FACTORS, draw
from fluxtionary.demo.train_flux import image_ids
from fluxtionary.interpretation.scene_tokens import VALUES, scene_tokens
from fluxtionary.residual import Site

SITES = [Site.parse("double.0.img"), Site.parse("double.1.img")]


@pytest.fixture(scope="module")
def tokens(demo_flux):
    return scene_tokens(demo_flux, SITES, 4, seed=3, split="validation", batch=2)


def column(factor, value):
    return VALUES.index((factor, value))


def test_each_scene_has_all_tokens_at_each_level(tokens):
    assert len(tokens) == 4 * 64 * 2
    for site in SITES:
        own = tokens.tokens[site]
        assert own.x.shape == (512, 192)
        assert (own.picture.bincount() == 128).all() and (own.position.bincount() == 8).all()
    assert {scene.split for scene in tokens.scenes} == {"validation"}
    first, second = (tokens.tokens[site] for site in SITES)
    assert torch.equal(first.picture, second.picture) and torch.equal(first.position, second.position)
    assert not torch.equal(first.x, second.x)


def test_noise_levels_lie_one_in_each_part(tokens):
    levels = np.array([np.unique(tokens.sigma[tokens.tokens[SITES[0]].picture.numpy() == i]) for i in range(4)])
    assert ((levels > [0, 0.25]) & (levels <= [0.25, 0.5])).all()
    assert (levels[0] == levels[1]).all() and (levels[0] != levels[2]).all()
    assert set(np.unique(tokens.between(0, 0.25).sigma)) == set(levels[:, 0])


def test_tokens_are_labeled_by_what_is_drawn_there(tokens):
    own = tokens.tokens[SITES[0]]
    for number, scene in enumerate(tokens.scenes):
        mine = own.picture.numpy() == number
        labels = tokens.labels[mine]
        for factor, values in FACTORS.items():
            shown = [value for value in values if labels[:, column(factor, value)].any()]
            assert shown == [scene.factors[factor]]
        on = labels[:, column("color", scene.color)]
        assert (on == labels[:, column("position", scene.position)]).all()
        assert not (on & labels[:, column("background", scene.background)]).any()
        x, y, _ = scene.placement
        covered = own.position.numpy()[mine][tokens.shares[mine, column("color", scene.color)] > 0]
        assert abs((covered % 8).mean() * 16 + 8 - x) < 9 and abs((covered // 8).mean() * 16 + 8 - y) < 9


def test_edges_are_not_counted(tokens):
    edge = (tokens.shares > 0.1) & (tokens.shares <= 0.5)
    assert edge.any() and (tokens.counted == ~edge).all()


def test_the_same_seed_gives_the_same_tokens_and_captions_vary(demo_flux, tokens):
    again = scene_tokens(demo_flux, SITES[:1], 4, seed=3, split="validation", batch=2)
    assert torch.equal(again.tokens[SITES[0]].x, tokens.tokens[SITES[0]].x)
    assert again.captions == tokens.captions and len(set(tokens.captions)) > 2


def test_they_are_what_the_transformer_sees_of_noised_latents(demo_flux):
    """One scene by hand: the same VAE, the same noise, a forward pass under a tap."""
    from fluxtionary.residual import Plan, Tap
    from fluxtionary.residual.diffusers_host import attach
    from fluxtionary.training.embeddings import embed

    found = scene_tokens(demo_flux, SITES[1:], 1, seed=4, split="train", levels=1, highest=0.2)
    sigma, scene = float(found.sigma[0]), found.scenes[0]
    picture = torch.from_numpy(draw(scene)).permute(2, 0, 1)[None] / 127.5 - 1
    text = embed(demo_flux, found.captions)
    tap = Tap(SITES[1])
    with torch.inference_mode(), attach(demo_flux, Plan([tap])) as run:
        latents = demo_flux.vae.encode(picture).latents
        noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(scene.seed))[None]
        demo_flux.transformer(
            hidden_states=(1 - sigma) * demo_flux._pack_latents(latents, *latents.shape) + sigma * noise,
            encoder_hidden_states=text.prompts,
            pooled_projections=text.pooled,
            timestep=torch.tensor([sigma]),
            img_ids=image_ids(),
            txt_ids=torch.zeros(16, 3),
        )
    assert torch.allclose(run.records[tap][0].activations[0], found.tokens[SITES[1]].x, atol=1e-3)
