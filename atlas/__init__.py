"""The catalogue of a dictionary's features on disk: what is known of each, and the pictures that show it."""

from .entries import Example, Feature, Kind, Maps, Picture, Score, Source
from .error import AtlasError, AtlasLookupError
from .reader import Atlas
from .writer import AtlasWriter

__all__ = [
    "Atlas",
    "AtlasError",
    "AtlasLookupError",
    "AtlasWriter",
    "Example",
    "Feature",
    "Kind",
    "Maps",
    "Picture",
    "Score",
    "Source",
]
