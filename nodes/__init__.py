"""The ComfyUI nodes: widgets in, a call of the library, outputs out."""

from comfy_api.latest import ComfyExtension, io

from .contrast_prompts import ContrastPrompts
from .feature_grid import FeatureGrid
from .feature_heat_map import FeatureHeatMap
from .inspect_picture import InspectPicture
from .load_demo_flux import LoadDemoFlux
from .load_dictionary import LoadDictionary
from .read_features import ReadFeatures
from .record_activations import RecordActivations
from .splice_dictionary import SpliceDictionary
from .steer_with_feature import SteerWithFeature
from .steer_with_vector import SteerWithVector
from .steering_vectors import LoadSteeringVector, SaveSteeringVector, VectorArithmetic
from .tap import Tap


class Fluxtionary(ComfyExtension):
    """The whole pack, as ComfyUI asks for it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadDemoFlux,
            LoadDictionary,
            SteerWithFeature,
            Tap,
            LoadSteeringVector,
            SaveSteeringVector,
            VectorArithmetic,
            SteerWithVector,
            SpliceDictionary,
            InspectPicture,
            ContrastPrompts,
            ReadFeatures,
            FeatureHeatMap,
            FeatureGrid,
            RecordActivations,
        ]
