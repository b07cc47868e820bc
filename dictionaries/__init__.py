"""What a dictionary is: sparse codes, encoding and decoding, normalization, measures, and the file format.

This room needs torch, numpy and safetensors only, and knows nothing of models or hosts.
"""

from .dictionary import Dictionary, FeatureError, Provenance, SparseAutoencoder, SparseCode
from .files import DictionaryFileError, load_dictionary, save_dictionary
from .normalization import Normalization
from .scale import Scale

__all__ = [
    "Dictionary",
    "DictionaryFileError",
    "FeatureError",
    "Normalization",
    "Provenance",
    "Scale",
    "SparseAutoencoder",
    "SparseCode",
    "load_dictionary",
    "save_dictionary",
]
