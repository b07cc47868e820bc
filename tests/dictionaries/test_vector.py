import pytest
import torch

from fluxtionary.dictionaries import Scale, SteeringVector

A, B = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
SITE = "double.1.img"


def one(direction=A, site=SITE, **more):
    return SteeringVector({site: direction}, **more)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda a, b: a + b, [4.0, 4.0, 0.0]),
        (lambda a, b: a - b, [2.0, 4.0, 0.0]),
        (lambda a, b: 2 * a, [6.0, 8.0, 0.0]),
        (lambda a, b: a * 0.5, [1.5, 2.0, 0.0]),
        (lambda a, b: -a, [-3.0, -4.0, 0.0]),
        (lambda a, b: a.unit(), [0.6, 0.8, 0.0]),
        (lambda a, b: a.orthogonal_to(b), [0.0, 4.0, 0.0]),
        (lambda a, b: a.interpolate(b, 0.25), [2.5, 3.0, 0.0]),
    ],
)
def test_arithmetic(made, expected):
    a, b = one(), one(B)
    assert made(a, b).directions[SITE].tolist() == pytest.approx(expected)
    assert torch.equal(a.directions[SITE], A) and torch.equal(b.directions[SITE], B)


def test_the_code_at_a_site_is_the_projection():
    code = one().at(SITE).encode(torch.stack([2 * A, torch.tensor([-4.0, 3.0, 1.0])]))
    assert code.values[:, 0].tolist() == pytest.approx([2.0, 0.0])
    assert one().cosine(one(B)) == {SITE: pytest.approx(0.6)}


def test_scales_stay_and_figures_do_not():
    from fluxtionary.dictionaries import Provenance

    scale = Scale(torch.ones(20))
    a = one(scales={SITE: scale}, provenance=Provenance(model={"name": "demo"}, metrics={"auroc": 0.9}))
    made = one(B) + a
    assert made.scales[SITE] is scale
    assert (a * 2).provenance.metrics == {} and (a * 2).provenance.model == {"name": "demo"}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: SteeringVector({}), "one site at least"),
        (lambda: one(torch.zeros(3)), "finite and not 0"),
        (lambda: one(torch.tensor([1.0, float("nan")])), "finite and not 0"),
        (lambda: SteeringVector({SITE: A, "single.0.img": A[:2]}), "all \\[d_model\\]"),
        (lambda: one(scales={"single.0.img": Scale(torch.ones(3))}), "no direction"),
        (lambda: one() + one(A, "single.0.img"), "other sites"),
        (lambda: one() + one(A[:2]), "other widths: 3 and 2"),
        (lambda: one() - one(), "finite and not 0"),
        (lambda: one().orthogonal_to(2 * one()), "parallel"),
        (lambda: one().at("single.0.img"), "nothing at single.0.img"),
    ],
)
def test_what_makes_no_vector_is_refused(made, words):
    with pytest.raises(ValueError, match=words):
        made()


def test_only_vectors_mix_with_vectors():
    with pytest.raises(TypeError, match="Tensor"):
        one() + A
