"""Heat maps as bytes."""

from pathlib import Path

import numpy as np
import pytest

from fluxtionary.atlas import AtlasError, Maps
from fluxtionary.atlas.packed_maps import PackedMaps, pack

PATH, N, CELLS = Path("atlas"), 500, 4096


def random_maps(seed, entries=2000):
    numbers = np.random.default_rng(seed)
    places = np.unique(numbers.integers(0, N * CELLS, entries))
    value = (numbers.standard_normal(len(places)) * 10 ** numbers.uniform(-6, 4, len(places))).astype(np.float32)
    return Maps((places // CELLS).astype(np.int32), (places % CELLS).astype(np.int32), value)


@pytest.mark.parametrize("seed", range(4))
def test_peaks_are_exact_and_the_rest_nearly(seed):
    maps = random_maps(seed)
    packed = PackedMaps(PATH, pack(PATH, maps, N, CELLS), N, CELLS)
    found = packed.unpacked()
    assert np.array_equal(found.feature, maps.feature) and np.array_equal(found.token, maps.token)
    for feature in np.unique(maps.feature):
        of = maps.feature == feature
        peak = np.abs(maps.value[of]).max()
        assert np.abs(found.value[of]).max() == peak
        assert np.abs(found.value[of] - maps.value[of]).max() <= peak / 2000
        dense = packed.of(feature, CELLS)
        assert np.array_equal(dense[maps.token[of]], found.value[of]) and (dense != 0).sum() == of.sum()
    assert (np.sign(found.value) == np.sign(maps.value)).all()  # what is not 0 stays so


def test_a_picture_in_which_nothing_is_active():
    nothing = Maps(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    packed = PackedMaps(PATH, pack(PATH, nothing, N, CELLS), N, CELLS)
    assert [len(column) for column in packed.unpacked()] == [0, 0, 0]
    assert not packed.of(3, CELLS).any()


def test_damaged_bytes_are_refused_or_maps():
    good, numbers = pack(PATH, random_maps(0, 60), N, CELLS), np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        data = bytearray(good)
        for place in numbers.integers(0, len(data), numbers.integers(1, 4)):
            data[place] = numbers.integers(256)
        try:
            found = PackedMaps(PATH, bytes(data), N, CELLS).unpacked()
        except AtlasError:
            refused += 1
            continue
        assert found.feature.min() >= 0 and found.feature.max() < N and found.token.max() < CELLS
        assert np.isfinite(found.value).all()
    assert refused > 50


@pytest.mark.parametrize("data", [None, 3, "text", b"", b"\0" * 7, b"\xff" * 8, b"\xff" * 4000, b"\0" * 9])
def test_what_are_no_maps_is_refused(data):
    with pytest.raises(AtlasError, match="atlas: expected"):
        PackedMaps(PATH, data, N, CELLS)
