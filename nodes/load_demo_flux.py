"""Load Demo Flux: the tiny Flux 1 that ships with the pack, to try every node without 24 GB of weights."""

from __future__ import annotations

from comfy_api.latest import io

from ..demo.files import SIZES
from .demo_parts import load_clip, load_model, load_vae


class LoadDemoFlux(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryLoadDemoFlux",
            display_name="Load Demo Flux",
            category="Fluxtionary",
            description="A tiny Flux 1 trained on drawings of one object: it ships with Fluxtionary and runs on any "
            "machine. Draw at 128x128 with captions such as 'a large red circle at the top left on a white "
            "background'. It shows how the nodes work, not what the big Flux can draw.",
            inputs=[
                io.Combo.Input(
                    "size",
                    options=list(SIZES),
                    default=SIZES[0],
                    tooltip="base: the model the demo dictionary was made for. small: a weaker one, for comparison.",
                )
            ],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, size: str) -> io.NodeOutput:
        return io.NodeOutput(load_model(size), load_clip(), load_vae())
