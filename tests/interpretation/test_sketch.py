import numpy as np
import pytest

from fluxtionary.interpretation.best_lists import BestLists, hashed, ranks
from fluxtionary.interpretation.sketch import Sketch


def test_similarities_of_large_sets_are_estimated(size=256):
    """Features with 40,000 places each, of which known shares are common."""
    rng = np.random.default_rng(0)
    common = rng.permutation(200_000)
    shares = [0.0, 0.2, 0.5, 0.8]
    sets = [common[:40_000]]
    for i, share in enumerate(shares):
        kept = round(40_000 * share)
        sets.append(np.concatenate([common[:kept], 10**6 * (i + 1) + np.arange(40_000 - kept)]))
    sketch = Sketch(5, size)
    for part in range(10):  # a tenth of each at a time
        feature = np.concatenate([np.full(4000, number) for number in range(5)])
        sketch.add(feature, np.concatenate([own[part::10] for own in sets]))
    numbers, similarity = sketch.companions(4)
    found = dict(zip(numbers[0].tolist(), similarity[0].tolist(), strict=True))
    for i, share in enumerate(shares):
        expected = share / (2 - share)
        assert found.get(i + 1, 0.0) == pytest.approx(
            expected, abs=4 * (expected * (1 - expected) / size) ** 0.5 + 1e-9
        )
    assert list(similarity[0]) == sorted(similarity[0], reverse=True)


def test_sets_of_very_different_sizes_are_compared_fairly():
    """A small set inside a large one: 50 of 5,000, the large one kept in part."""
    sketch = Sketch(2, 512)
    sketch.add(
        np.concatenate([np.zeros(5000, int), np.ones(50, int)]), np.concatenate([np.arange(5000), np.arange(50)])
    )
    _, similarity = sketch.companions(1)
    assert similarity[0, 0] == similarity[1, 0] and 0 <= similarity[0, 0] < 0.04


def test_features_that_share_nothing_have_no_companions():
    sketch = Sketch(3, 8)
    sketch.add(np.array([0, 1]), np.array([5, 6]))
    numbers, similarity = sketch.companions(2)
    assert (numbers == -1).all() and (similarity == 0).all()


def test_many_features_are_compared_in_blocks():
    """More features than are looked at together; each shares a place with the one 300 further on alone."""
    sketch = Sketch(600, 4)
    sketch.add(np.arange(600), np.arange(600) % 300)
    numbers, similarity = sketch.companions(1)
    assert (numbers[:, 0] == (np.arange(600) + 300) % 600).all() and (similarity == 1).all()


def test_lists_keep_the_least_keys_whatever_the_order():
    rng = np.random.default_rng(1)
    owner, key = rng.integers(0, 20, 3000), rng.integers(0, 50, 3000).astype(np.float32)
    item = np.arange(3000)
    lists = [BestLists(20, 5, np.float32) for _ in range(2)]
    for part in np.array_split(item, 7):
        lists[0].add(owner[part], key[part], part, part / 2)
    for part in np.array_split(rng.permutation(3000), 11):
        lists[1].add(owner[part], key[part], part, part / 2)
    for number in range(20):
        own = item[owner == number]
        best = own[np.lexsort((own, key[own]))][:5]
        assert lists[0].item[number].tolist() == lists[1].item[number].tolist() == best.tolist()
        assert np.array_equal(lists[0].value[number], best / 2) and np.array_equal(lists[0].key[number], key[best])


def test_places_that_are_not_taken_stay_empty():
    lists = BestLists(2, 3, np.uint64)
    lists.add(np.array([1]), np.array([7], np.uint64), np.array([0]), np.array([0.5]))
    assert lists.item.tolist() == [[-1, -1, -1], [0, -1, -1]]
    lists.add(np.zeros(0, int), np.zeros(0, np.uint64), np.zeros(0, int), np.zeros(0))


def test_hashes_are_spread_evenly_and_one_to_one():
    found = hashed(np.arange(200_000))
    assert len(np.unique(found)) == 200_000
    counts = np.histogram(found.astype(np.float64), 100, (0, 2.0**64))[0]
    assert abs(counts - 2000).max() < 6 * 2000**0.5


def test_ranks_count_within_groups():
    assert ranks(np.array([3, 3, 5, 9, 9, 9])).tolist() == [0, 1, 0, 0, 1, 2]
    assert ranks(np.zeros(0, int)).tolist() == []
