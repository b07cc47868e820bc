"""The ComfyUI nodes: widgets in, a call of the library, outputs out."""

from comfy_api.latest import ComfyExtension, io

from .load_demo_flux import LoadDemoFlux
from .load_dictionary import LoadDictionary
from .steer_with_feature import SteerWithFeature
from .tap import Tap


class Fluxtionary(ComfyExtension):
    """The whole pack, as ComfyUI asks for it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadDemoFlux,
            LoadDictionary,
            SteerWithFeature,
            Tap,
        ]
