import itertools
from collections import Counter

import numpy as np
import pytest

from fluxtionary.demo.scenes import (
    BACKGROUNDS,
    COLORS,
    FACTORS,
    GRID,
    SHAPES,
    SPLITS,
    Scene,
    draw,
    edge_distance,
    sample_scenes,
    split_of,
    token_coverage,
)


def test_there_are_as_many_values_as_promised():
    least = {"color": 8, "shape": 5, "size": 2, "position": 9, "background": 6}
    assert {name: len(values) >= least[name] for name, values in FACTORS.items()} == dict.fromkeys(least, True)


def test_splits_are_disjoint_and_of_the_documented_sizes():
    combinations = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]
    counts = Counter(split_of(factors) for factors in combinations)
    shares = {name: counts[name] / len(combinations) for name in SPLITS}
    for name, share in {"train": 0.63, "validation": 0.135, "test": 0.135, "unseen": 0.1}.items():
        assert shares[name] == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("split", SPLITS)
def test_sampled_scenes_keep_to_their_split_and_repeat(split):
    scenes = sample_scenes(50, 3, split)
    assert {scene.split for scene in scenes} == {split}
    assert scenes == sample_scenes(50, 3, split)
    assert scenes != sample_scenes(50, 4, split)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'trian'.*train"):
        sample_scenes(1, 0, "trian")


def test_a_drawing_has_its_colors_where_its_mask_says():
    for scene in sample_scenes(20, 0, "train"):
        picture = draw(scene).astype(int)
        inside = edge_distance(scene.shape, *scene.placement) < -1
        outside = edge_distance(scene.shape, *scene.placement) > 1
        assert (picture[inside] == COLORS[scene.color]).all()
        assert (picture[outside] == BACKGROUNDS[scene.background]).all()
        tokens = token_coverage(scene)
        assert tokens.shape == (GRID, GRID)
        side = 128 // GRID
        assert np.allclose(tokens[tokens == 1], 1) and tokens.max() <= 1
        full = inside.reshape(GRID, side, GRID, side).all((1, 3))
        assert (tokens[full] > 0.99).all()


def test_the_seed_moves_the_object_a_little():
    scene = [Scene("red", "circle", "small", "center", "black", seed) for seed in (1, 2)]
    assert not np.array_equal(draw(scene[0]), draw(scene[1]))
    for one in scene:
        x, y, radius = one.placement
        assert abs(x - 64) <= 1 and abs(y - 64) <= 1 and abs(radius / 15 - 1) <= 0.03


@pytest.mark.parametrize("shape", SHAPES)
def test_objects_never_touch_the_frame(shape):
    for scene in sample_scenes(300, 1, "train"):
        distance = edge_distance(shape, *Scene(**(scene.factors | {"size": "large"}), seed=scene.seed).placement)
        distance[4:-4, 4:-4] = 1
        assert (distance > 0).all()
