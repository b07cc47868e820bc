import pickle

import numpy as np
import pytest
import torch

from fluxtionary.dictionaries import ContrastMeter
from fluxtionary.dictionaries.contrast import direction_of, explained_share, folds, held_out_auroc
from fluxtionary.dictionaries.scale import BINS, ScaleMeter

WIDTH = 12


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sides(pairs=6, tokens=40, d_model=WIDTH, shift=None, spread=0.0, seed=0):
    """(x, sigma, pair, positive) for both sides of pairs that share their picture and differ by `shift`."""
    shift = torch.zeros(d_model) if shift is None else shift
    out = []
    for pair in range(pairs):
        picture = 5 * random(seed + 100 * pair, tokens, d_model)
        own = shift + spread * random(seed + 100 * pair + 1, d_model)
        sigma = torch.linspace(0, 1, tokens)
        out += [(picture + own, sigma, pair, True), (picture, sigma, pair, False)]
    return out


def measured(parts, d_model=WIDTH):
    meter = ContrastMeter(d_model)
    for part in parts:
        meter.add(*part)
    return meter


def explained(meter, method="mean difference"):
    return explained_share(meter.sides(), meter.direction(method))


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


@pytest.mark.parametrize("method", ["mean difference", "pca"])
def test_a_planted_direction_comes_back_with_its_sign_and_length(method):
    planted = 3 * random(9, WIDTH)
    meter = measured(sides(pairs=64, shift=planted, spread=0.3))
    found = meter.direction(method)
    assert found.dtype == torch.float64 and found.shape == (WIDTH,)
    assert cosine(found, planted) > 0.99
    assert float(found.norm()) == pytest.approx(float(planted.norm()), rel=0.05)
    turned = measured([(*part, pair, not positive) for *part, pair, positive in sides(64, shift=planted, spread=0.3)])
    assert torch.allclose(turned.direction(method), -found, rtol=1e-9)


def test_the_mean_difference_is_that_of_the_pairs_means():
    meter = ContrastMeter(2)
    for x, pair, positive in (
        ([[1.0, 0.0], [3.0, 0.0]], 7, True),
        ([[0.0, 1.0]], 7, False),
        ([[0.0, 4.0]], 2, True),
        ([[0.0, 0.0]], 2, False),
    ):
        meter.add(torch.tensor(x), torch.zeros(len(x)), pair, positive)
    assert meter.pair_differences().tolist() == [[0.0, 4.0], [2.0, -1.0]]
    assert meter.direction().tolist() == [1.0, 1.5]


def test_order_and_batches_do_not_matter():
    parts = sides(shift=random(3, WIDTH), spread=1.0)
    whole = measured(parts)
    pieces = [(x[at], sigma[at], p, side) for x, sigma, p, side in parts for at in (slice(0, 3), slice(3, None))]
    other = measured(reversed(pieces))
    for method in ("mean difference", "pca"):
        assert torch.allclose(whole.direction(method), other.direction(method), rtol=1e-10)
        assert explained(whole, method) == pytest.approx(explained(other, method))
    assert whole.split_half_cosine() == pytest.approx(other.split_half_cosine())
    assert torch.allclose(whole.scale().values, other.scale().values)


def test_a_pair_of_more_tokens_weighs_no_more():
    few = sides(pairs=2, spread=1.0)
    many = [
        (x.repeat(50, 1), sigma.repeat(50), p, side) if p == 0 else (x, sigma, p, side) for x, sigma, p, side in few
    ]
    lopsided = [(x.repeat(9, 1), sigma.repeat(9), p, s) if s and p else (x, sigma, p, s) for x, sigma, p, s in few]
    for method in ("mean difference", "pca"):
        wanted = measured(few).direction(method)
        assert torch.allclose(measured(many).direction(method), wanted, rtol=1e-9)
        assert torch.allclose(measured(lopsided).direction(method), wanted, rtol=1e-9)


@pytest.mark.parametrize("pairs", [3, 40])
def test_pca_is_numpy_s_svd_about_zero(pairs):
    meter = measured(sides(pairs=pairs, shift=random(4, WIDTH), spread=2.0))
    differences = meter.pair_differences().numpy()
    _, values, rows = np.linalg.svd(differences)
    found, mean = meter.direction("pca"), differences.mean(0)
    assert abs(cosine(found, torch.from_numpy(rows[0]))) == pytest.approx(1, abs=1e-9)
    assert float(found.norm()) == pytest.approx(np.linalg.norm(mean))
    assert float(found @ torch.from_numpy(mean)) > 0
    assert explained(meter, "pca") == pytest.approx(values[0] ** 2 / (values**2).sum())
    assert explained(meter, "pca") >= explained(meter, "mean difference")


def test_of_one_pair_both_methods_give_the_difference():
    meter = measured(sides(pairs=1, shift=random(5, WIDTH)))
    assert torch.allclose(meter.direction("pca"), meter.direction("mean difference"), rtol=1e-9)
    assert torch.equal(meter.direction(), meter.pair_differences()[0])
    assert meter.split_half_cosine() is None
    assert explained(meter) == pytest.approx(1)


def test_quality_tells_agreement_from_noise():
    planted = 3 * random(6, 64)
    good = measured(sides(pairs=20, d_model=64, shift=planted, spread=0.1), 64)
    noise = measured(sides(pairs=20, d_model=64, spread=1.0), 64)
    assert good.split_half_cosine() > 0.99 and explained(good) > 0.95
    assert abs(noise.split_half_cosine()) < 0.4 and explained(noise) < 0.3


def test_halves_are_every_other_pair_whatever_their_numbers():
    meter = ContrastMeter(2)
    for pair, x in ((10, [1.0, 0.0]), (20, [0.0, 1.0]), (40, [1.0, 0.0]), (60, [0.0, 1.0])):
        meter.add(torch.tensor([x]), torch.zeros(1), pair, True)
        meter.add(torch.zeros(1, 2), torch.zeros(1), pair, False)
    assert meter.split_half_cosine() == 0


def test_the_scale_is_that_of_the_tokens_of_both_sides():
    parts = sides(shift=random(7, WIDTH))
    expected = ScaleMeter(WIDTH)
    for x, sigma, *_ in parts:
        expected.add(x, sigma)
    scale = measured(parts).scale()
    assert len(scale.values) == BINS
    assert torch.equal(scale.values, expected.scale().values)


def test_memory_grows_with_pairs_and_not_with_tokens():
    pairs, width = 200, 16
    meter = ContrastMeter(width)

    def feed(chosen, tokens):
        for pair in chosen:
            picture = random(pair, tokens, width)
            for positive in (True, False):
                meter.add(picture + 2 * positive, torch.full((tokens,), 0.5), pair, positive)
        return len(pickle.dumps(meter))

    once = feed(range(pairs), 8)
    assert feed(range(10), 4000) < 1.01 * once
    assert once < pairs * (2 * 8 * width + 600)
    assert cosine(meter.direction("pca"), torch.ones(width)) > 0.999


def test_half_precision_is_summed_in_double():
    x = torch.full((30_000, 1), 1.001, dtype=torch.float16)
    meter = measured([(x, torch.zeros(len(x)), 0, True), (0 * x, torch.zeros(len(x)), 0, False)], 1)
    assert float(meter.direction()) == pytest.approx(float(x[0]), rel=1e-12)


POSITIVE, NEGATIVE = sides(pairs=1, shift=torch.ones(WIDTH))
BAD = torch.ones(4, WIDTH)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "one pair at least, found none"),
        ([POSITIVE], r"both sides of each of 1 pairs, found none for 0 \(negative\)"),
        ([POSITIVE, NEGATIVE, (BAD, BAD[:, 0], 3, False)], r"found none for 3 \(positive\)"),
        ([(BAD, BAD[:, 0], p, True) for p in range(10)], r"7 \(negative\) and 2 more"),
        ([POSITIVE, NEGATIVE, (BAD[:0], BAD[:0, 0], 3, True)], r"3 \(positive\), 3 \(negative\)"),
        (sides(pairs=4), "found differences of 0 at most.*are the positive and the negative pictures the same"),
        (sides(pairs=4, shift=torch.full((WIDTH,), 1e-7)), "pictures the same"),
        (
            [POSITIVE, NEGATIVE, (*POSITIVE[:2], 1, False), (*NEGATIVE[:2], 1, True)],
            "they cancel out; are positive and negative swapped",
        ),
    ],
)
@pytest.mark.parametrize("method", ["mean difference", "pca"])
def test_what_makes_no_direction_is_refused(parts, words, method):
    meter = measured(parts)
    with pytest.raises(ValueError, match=words):
        meter.direction(method)
    with pytest.raises(ValueError, match=words):
        explained(meter, method)


@pytest.mark.parametrize(
    ("x", "sigma", "words"),
    [
        (torch.ones(4, 3), torch.ones(4), r"\[n, 12\].*found shapes \[4, 3\] and \[4\]"),
        (BAD, torch.ones(3), r"found shapes \[4, 12\] and \[3\]"),
        (BAD[None], torch.ones(1), r"found shapes \[1, 4, 12\]"),
        (BAD / 0, torch.ones(4), "NaN or infinity on the positive side of pair 5"),
        (BAD * float("nan"), torch.ones(4), "NaN or infinity"),
        (BAD, torch.full((4,), float("nan")), "NaN or infinity"),
    ],
)
def test_activations_that_do_not_fit_are_refused_and_leave_no_trace(x, sigma, words):
    meter = measured([POSITIVE, NEGATIVE])
    before = meter.direction()
    with pytest.raises(ValueError, match=words):
        meter.add(x, sigma, 5, True)
    assert torch.equal(meter.direction(), before)


def test_other_methods_are_refused():
    with pytest.raises(ValueError, match="mean difference, pca, found 'probe'"):
        measured([POSITIVE, NEGATIVE]).direction("probe")


def test_without_a_token_there_is_no_scale():
    with pytest.raises(ValueError, match="no token"):
        ContrastMeter(WIDTH).scale()


def planted_sides(pairs, shift, d_model=64, seed=0):
    """Sides `[pairs, 2, d_model]` of contexts that differ by much, and the positive ones by `shift` besides."""
    contexts = random(seed, pairs, 1, d_model) + 0.3 * random(seed + 1, pairs, 2, d_model)
    return (contexts + torch.stack([torch.zeros_like(shift), shift])).double()


def test_held_out_sides_are_told_apart_where_there_is_a_direction_and_not_where_there_is_none():
    shift = random(3, 64)
    assert held_out_auroc(planted_sides(40, shift)) > 0.99
    assert held_out_auroc(planted_sides(40, -shift)) > 0.99
    chance = [held_out_auroc(planted_sides(40, 0 * shift, seed=seed)) for seed in range(20)]
    assert abs(float(np.mean(chance)) - 0.5) < 0.05
    weak = held_out_auroc(planted_sides(40, 0.1 * shift))
    assert 0.55 < weak < 0.9


def test_auroc_is_sklearn_s_of_each_part_with_the_direction_of_the_others():
    from sklearn.metrics import roc_auc_score

    sides = planted_sides(23, 0.15 * random(3, 64))
    part, scores = folds(list(range(23))), []
    for number in range(5):
        held = part == number
        along = sides[held].flatten(0, 1) @ direction_of(sides[~held])
        scores.append((roc_auc_score([0, 1] * int(held.sum()), along), int(held.sum())))
    expected = sum(score * count for score, count in scores) / 23
    assert held_out_auroc(sides) == pytest.approx(expected)
    assert 0.5 < expected < 0.99


@pytest.mark.parametrize(
    ("pairs", "expected"), [(2, [1, 1]), (3, [1, 2]), (4, [2, 2]), (7, [2, 2, 3]), (12, [2, 2, 2, 3, 3])]
)
def test_every_pair_is_held_out_once_and_two_at_a_time_where_they_suffice(pairs, expected):
    seen = []

    def make(sides):
        seen.append(pairs - len(sides))
        return direction_of(sides)

    held_out_auroc(planted_sides(pairs, random(3, 64)), make)
    assert sorted(seen) == expected


def test_pairs_of_one_group_are_held_out_together():
    """The same pairs twice: held out one by one each is known from its double."""
    sides = planted_sides(12, torch.zeros(256), 256).repeat_interleave(2, 0)
    groups = [number // 2 for number in range(24)]
    assert held_out_auroc(sides) > 0.75
    assert held_out_auroc(sides, groups=groups) < 0.7
    part = folds(groups)
    assert torch.equal(part[::2], part[1::2])


def test_nothing_can_be_held_out_of_one_pair_or_group():
    assert held_out_auroc(planted_sides(1, random(3, 64))) is None
    assert held_out_auroc(planted_sides(4, random(3, 64)), groups=[7, 7, 7, 7]) is None


def test_sides_that_are_the_same_are_told_apart_by_chance():
    assert held_out_auroc(torch.ones(6, 2, 8, dtype=torch.float64)) == 0.5


def test_quality_has_all_figures_and_length_in_units_of_strength():
    meter = measured(sides(pairs=8, shift=3 * random(6, WIDTH), spread=0.1))
    direction = meter.direction()
    found = meter.quality(direction, [0.2, 0.8])
    scale = meter.scale()
    assert found["auroc"] == held_out_auroc(meter.sides())
    assert found["split_half_cosine"] == meter.split_half_cosine()
    assert found["explained"] == explained(meter)
    assert found["length"] == pytest.approx(float(direction.norm()) / (scale.at(0.2) + scale.at(0.8)) * 2)
    assert meter.tokens == 8 * 2 * 40
