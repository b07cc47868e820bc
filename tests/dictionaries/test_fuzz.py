"""Mutated and hostile files through every reader: a `DictionaryFileError` or a correct dictionary, nothing else."""

import pytest

from .fuzz import Fuzzer


def test_a_short_seeded_share(tmp_path):
    found = Fuzzer(tmp_path, seed=1).run(500)
    assert found["refused"] > 300 and found["loaded"] > 5, found


@pytest.mark.long
def test_twenty_thousand_files(tmp_path):
    found = Fuzzer(tmp_path, seed=2).run(20_000)
    assert found["refused"] > 12_000 and found["loaded"] > 300, found
