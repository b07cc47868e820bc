"""Heat maps laid over pictures."""

import pytest
import torch

from fluxtionary.residual.overlay import COLORS, PAPER_BLUE, colored, enlarged, overlaid, paper_overlaid


@pytest.mark.parametrize("colors", COLORS)
def test_a_color_map_goes_from_its_first_color_to_its_last(colors):
    ends = colored(torch.tensor([-1.0, 0.0, 1.0, 2.0]), colors)
    first, last = (torch.tensor([int(COLORS[colors][i][j : j + 2], 16) / 255 for j in (0, 2, 4)]) for i in (0, -1))
    assert torch.allclose(ends, torch.stack([first, first, last, last]))


@pytest.mark.parametrize("colors", ["viridis", "cividis"])
def test_color_blind_maps_rise_in_brightness(colors):
    brightness = colored(torch.linspace(0, 1, 50), colors) @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (brightness.diff() > 0).all()


def test_a_token_is_enlarged_to_its_own_square():
    maps = torch.zeros(1, 2, 3)
    maps[0, 1, 2] = 1
    large = enlarged(maps, (4, 6), (32, 48), smooth=False)[0]
    assert large.shape == (32, 48) and large[16:, 32:].eq(1).all() and large.sum() == 16 * 16


def test_what_reaches_beyond_an_odd_latent_is_cut_off():
    large = enlarged(torch.ones(1, 2, 2), (3, 3), (24, 24), smooth=False)
    assert large.shape == (1, 24, 24) and large.eq(1).all()


def test_the_higher_the_value_the_more_opaque():
    picture, values = torch.full((1, 3, 3), 0.5), torch.tensor([[0.0, 0.5, 1.0]])
    drawn = overlaid(picture, values, "heat", 0.8)
    covered = (drawn - picture).abs().amax(-1)[0]
    assert covered[0] < covered[2] and torch.allclose(drawn[0, 2], torch.tensor([0.9] * 3))
    assert torch.equal(overlaid(picture, values, "heat", 0.0), picture)


def test_the_paper_s_blue_is_seven_tenths_of_the_root():
    picture = torch.full((1, 3, 3), 0.5)
    drawn = paper_overlaid(picture, torch.tensor([[0.0, 0.25, 1.0]]))
    assert torch.equal(drawn[0, 0], picture[0, 0])  # where it is not active nothing is drawn
    for place, opacity in ((1, 0.35), (2, 0.7)):
        expected = 0.5 * (1 - opacity) + opacity * torch.tensor(PAPER_BLUE)
        assert torch.allclose(drawn[0, place], expected)
    assert torch.allclose(paper_overlaid(picture, torch.tensor([[-1.0, 4.0, 1.0]]))[0, 1], drawn[0, 2])
