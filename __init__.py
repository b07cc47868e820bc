"""Fluxtionary: sparse dictionaries of Flux 1's residual stream, to see it and to steer it.

This file is what both `import fluxtionary` and ComfyUI load first, so it imports nothing heavy.
"""

__version__ = "0.1.0"

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls to get the nodes."""
    from .nodes.load_dictionary import register_folder

    register_folder()
    from .nodes.steering_vectors import register_folder as register_vectors

    register_vectors()
    from .nodes.routes import register as register_routes

    register_routes()
    from .nodes import Fluxtionary

    return Fluxtionary()
