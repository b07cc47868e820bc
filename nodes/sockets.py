"""What goes along the wires of a graph, besides ComfyUI's own types."""

from comfy_api.latest import io

FluxDictionary = io.Custom("FLUX_DICTIONARY")
"""A `dictionaries.Dictionary`."""

FluxSteeringVector = io.Custom("FLUX_STEERING_VECTOR")
"""A `dictionaries.SteeringVector`."""

FluxCapture = io.Custom("FLUX_CAPTURE")
"""A `residual.capture.Capture`: what a Tap saw, by sampling run."""
