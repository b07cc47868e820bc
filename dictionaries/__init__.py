"""What a dictionary is: sparse codes, encoding and decoding, normalization, measures, files of every kind.

This room needs torch, numpy and safetensors only, and knows nothing of models or hosts.
"""

from .activation import Activation
from .contrast import ContrastMeter
from .dictionary import Dictionary, FeatureError, Provenance
from .files import load_dictionary, load_vector, read_header, save_dictionary
from .fit_meter import Fit, FitMeter, describe_fit
from .itda import ITDA, Sources
from .neurons import Neurons
from .normalization import Noise, Normalization
from .sae import SparseAutoencoder
from .scale import Scale
from .schema import DictionaryFileError
from .sparse_code import SparseCode
from .vector import SteeringVector, VectorAt

__all__ = [
    "ITDA",
    "Activation",
    "ContrastMeter",
    "Dictionary",
    "DictionaryFileError",
    "FeatureError",
    "Fit",
    "FitMeter",
    "Neurons",
    "Noise",
    "Normalization",
    "Provenance",
    "Scale",
    "Sources",
    "SparseAutoencoder",
    "SparseCode",
    "SteeringVector",
    "VectorAt",
    "describe_fit",
    "load_dictionary",
    "load_vector",
    "read_header",
    "save_dictionary",
]
