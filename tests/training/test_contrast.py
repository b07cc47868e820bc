import json

import pytest
import torch

from fluxtionary.dictionaries import load_vector, save_dictionary
from fluxtionary.residual import Plan, Site, Tap
from fluxtionary.residual.diffusers_host import attach
from fluxtionary.training.contrast import contrast, doubts, kept_prompts, maker, probe_direction, rank, usual_sites
from fluxtionary.training.first_steps import Size, Watching
from fluxtionary.training.prompt_pairs import Pair, expand
from fluxtionary.training.sampling import ModelError

PAIRS = expand("a {red|blue} {circle|square|cross} on a {white|black} background")
IMAGE, TEXT, SINGLE = (Site.parse(site) for site in ("double.1.img", "double.0.txt", "single.1.img"))


def made(pipeline, pairs=PAIRS, sites=(IMAGE, TEXT), **options):
    return contrast(pipeline, pairs, list(sites), progress=False, **options)


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


@pytest.fixture(scope="module")
def found(demo_flux):
    return made(demo_flux, sites=[IMAGE, TEXT, Site.parse("double.0.img")])


def test_it_is_the_difference_of_what_taps_of_the_pipeline_see(random_flux):
    """One step of pure noise, in the host's own pipeline: the same noise, and no step of another sampler between."""
    pairs = PAIRS[:3]
    means = {}
    for side in (0, 1):
        taps = [Tap(site) for site in (IMAGE, TEXT, SINGLE)]
        with attach(random_flux, Plan(taps)) as run, torch.inference_mode():
            random_flux(
                prompt=[pair[side] for pair in pairs for _ in (5, 6)],
                height=128,
                width=128,
                num_inference_steps=1,
                max_sequence_length=16,
                generator=[torch.Generator().manual_seed(seed) for _ in pairs for seed in (5, 6)],
                output_type="latent",
            )
        for tap in taps:
            means[tap.site, side] = run.records[tap][0].activations.double().mean((0, 1))
    watching = Watching(steps=1, end=1.0, seeds=2, seed=5)
    found = made(random_flux, pairs, (IMAGE, TEXT, SINGLE), watching=watching, size=Size(batch=5))
    for site, direction in found.directions.items():
        expected = means[site, 0] - means[site, 1]
        assert cosine(direction, expected) > 0.99999
        assert float(direction.norm() / expected.norm()) == pytest.approx(1, abs=1e-3)
        assert found.figures[site]["tokens"] == 3 * 2 * 2 * (16 if site == TEXT else 64)


def test_batches_and_order_of_sites_do_not_matter(random_flux):
    one = made(random_flux, PAIRS[:4], size=Size(batch=3))
    other = made(random_flux, PAIRS[:4], (TEXT, IMAGE), size=Size(batch=40))
    for site in (IMAGE, TEXT):
        assert torch.allclose(one.directions[site], other.directions[site], atol=1e-5)
    assert one.best == other.best


def test_a_prompt_of_several_pairs_is_drawn_once(random_flux):
    pairs = [Pair("a red ring", "a ring"), Pair("a red cross", "a ring"), Pair("a blue cross", "a ring")]
    calls = []
    handle = random_flux.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    try:
        made(random_flux, pairs, watching=Watching(steps=1, end=1.0), size=Size(batch=4))
    finally:
        handle.remove()
    assert calls[0] == 4


def test_the_best_site_comes_first_and_a_site_that_nothing_is_read_from_last(found):
    """After the first block image tokens differ, all in the same way, but little of it is read (see `rank`)."""
    ranks = [rank(found.figures[site]) for site in found.directions]
    assert ranks == sorted(ranks, reverse=True)
    assert found.best == TEXT
    early = Site.parse("double.0.img")
    assert list(found.directions)[-1] == early
    assert found.figures[early]["effect"] < 0.3
    assert found.figures[TEXT]["effect"] > 0.6
    assert not doubts(found.figures[TEXT])


def test_pairs_that_differ_in_nothing_alike_are_doubted(demo_flux):
    prompts = [
        ("a red circle", "a small ring on a tan background"),
        ("a large blue cross at the left", "a square"),
        ("a circle on a black background", "a red triangle at the top"),
        ("a green shape", "a large cross on a navy background"),
        ("a small ring at the right", "a blue circle"),
        ("a pink square on a white background", "a shape at the bottom left"),
    ]
    nothing = made(demo_flux, [Pair(*each) for each in prompts])
    said = " and ".join(doubts(nothing.figures[nothing.best]))
    assert "is another in either half of the pairs" in said or "hardly tells held-out pairs apart" in said


def test_the_file_carries_all_of_it_and_loads(found, tmp_path):
    path = tmp_path / "red.safetensors"
    save_dictionary(found.vector(), path)
    vector = load_vector(path)
    assert vector.sites == (str(TEXT),)
    assert cosine(vector.directions[str(TEXT)], found.directions[TEXT]) > 0.999999
    assert torch.equal(vector.scales[str(TEXT)].values, found.meters[TEXT].scale().values)
    about = vector.provenance
    assert list(about.metrics) == [str(site) for site in found.directions]
    assert about.metrics[str(IMAGE)] == json.loads(json.dumps(found.figures[IMAGE]))
    assert set(about.metrics[str(IMAGE)]) == {"tokens", "effect", "auroc", "split_half_cosine", "explained", "length"}
    assert about.capture["sigmas"] == [1.0, 0.75] and about.capture["seeds"] == [0]
    assert about.training["pairs"] == len(PAIRS) and about.training["method"] == "mean difference"
    assert about.training["prompts"]["positive"] == [pair.positive for pair in PAIRS]
    assert found.vector([TEXT, IMAGE]).sites == (str(TEXT), str(IMAGE))


def test_a_file_keeps_no_more_prompts_than_it_needs():
    pairs = [Pair(f"{i} red", f"{i} blue") for i in range(500)]
    kept = kept_prompts(pairs)
    assert len(kept["positive"]) == len(kept["negative"]) == 128
    assert set(zip(*kept.values(), strict=True)) < set(pairs)
    assert kept_prompts(pairs[:3]) == {
        "positive": ["0 red", "1 red", "2 red"],
        "negative": ["0 blue", "1 blue", "2 blue"],
    }


def test_one_pair_has_an_effect_and_no_figure_of_held_out_pairs(demo_flux):
    one = made(demo_flux, PAIRS[:1])
    figures = one.figures[one.best]
    assert figures["auroc"] is None and figures["split_half_cosine"] is None
    assert figures["effect"] > 0.2
    assert one.vector().sites == (str(one.best),)


@pytest.mark.parametrize("method", ["pca", "probe"])
def test_the_other_methods_point_the_same_way_at_the_same_length(demo_flux, found, method):
    other = made(demo_flux, method=method)
    for site, direction in other.directions.items():
        assert 0.5 < cosine(direction, found.directions[site]) < 1
        assert float(direction.norm()) == pytest.approx(float(found.directions[site].norm()))
        assert other.about.training["method"] == method


def test_a_probe_ignores_what_pairs_differ_by_without_telling_them_apart():
    """Two channels: one that is larger on the positive side by a little and always, one that varies by much."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.randn(400, 2, 6, generator=generator, dtype=torch.float64) * torch.tensor([0.1, 3, 1, 1, 1, 1])
    sides[:, 1, 0] += 0.5
    sides[:, 1, 1] += 1.0
    probe, mean = probe_direction(sides), maker("mean difference")(sides)
    assert cosine(probe, torch.eye(6)[0]) > 0.9 > 0.6 > cosine(mean, torch.eye(6)[0])
    assert float(probe.norm()) == pytest.approx(float(mean.norm()))


def test_usual_sites_are_both_streams_of_double_blocks(demo_flux):
    assert [str(site) for site in usual_sites(demo_flux)] == [
        "double.0.img",
        "double.0.txt",
        "double.1.img",
        "double.1.txt",
    ]

    class Flux:
        transformer_blocks, single_transformer_blocks, inner_dim = range(19), range(38), 3072

    class Pipeline:
        transformer = Flux()

    sites = usual_sites(Pipeline())
    assert {site.block for site in sites} == {0, 3, 6, 9, 12, 15, 18} and len(sites) == 14


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (["single.3.txt"], "would do nothing"),
        (["double.0.img.mlp"], "can be tapped but not edited"),
        (["double.7.img"], "no double.7.img"),
    ],
)
def test_sites_that_cannot_be_steered_are_refused(demo_flux, sites, words):
    with pytest.raises(ValueError, match=words):
        made(demo_flux, PAIRS, [Site.parse(site) for site in sites])


def test_prompts_that_come_to_the_same_are_refused_at_their_site(demo_flux):
    with pytest.raises(ModelError, match="double.1.img: .*are the positive and the negative pictures the same"):
        made(demo_flux, [Pair("a red circle", "a red circle!")])
