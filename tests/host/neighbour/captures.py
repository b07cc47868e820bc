"""What torch itself sees in the blocks of a run, and what a Tap says that it saw."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy.patcher_extension import WrappersMP
from safetensors.torch import save_file


def save(found, name):
    save_file(found, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")


class Hook:
    """A MODEL on whose blocks a forward hook of torch clones the output, while it samples."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {"required": {"model": ("MODEL",), "block": ("INT", {}), "name": ("STRING", {})}}

    def patch(self, model, block, name):
        def sampled(executor, *args, **kwargs):
            flux = executor.class_obj.model_patcher.get_model_object("diffusion_model")
            kept = {"double.img": [], "double.txt": [], "single": []}

            def double(_module, _args, out):
                kept["double.img"].append(out[0].clone())
                kept["double.txt"].append(out[1].clone())

            handles = [
                flux.double_blocks[block].register_forward_hook(double),
                flux.single_blocks[block].register_forward_hook(lambda _m, _a, out: kept["single"].append(out.clone())),
            ]
            try:
                return executor(*args, **kwargs)
            finally:
                for handle in handles:
                    handle.remove()
                save({f"{i}.{key}": x for key, found in kept.items() for i, x in enumerate(found)}, name)

        clone = model.clone()
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "neighbour-hook", sampled)
        return (clone,)

    @classmethod
    def IS_CHANGED(cls, **_):  # noqa: N802
        return float("nan")


class Captured:
    """The activations of a capture's run, in the order of its calls."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "neighbour", "tell", (), True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"latent": ("LATENT",), "capture": ("FLUX_CAPTURE",), "name": ("STRING", {})}}

    def tell(self, latent, capture, name):
        run = capture.run(latent["samples"])
        found = {
            f"{i}.{site}": record.activations.contiguous()
            for site, records in run.records.items()
            for i, record in enumerate(records)
        }
        save(found, name)
        return {"ui": {"bytes": [capture.get_ram_usage()], "runs": [len(capture)]}}


NODES = {kind.__name__: kind for kind in (Hook, Captured)}
