"""An atlas of drawn scenes, written once."""

import pytest

from .drawn_atlas import write_atlas


@pytest.fixture(scope="session")
def drawn_atlas(tmp_path_factory):
    with write_atlas(tmp_path_factory.mktemp("drawn") / "atlas") as atlas:
        yield atlas
