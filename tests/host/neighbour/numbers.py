"""Numbers and masks as other packs hand them over, good and bad."""

import json

import torch


class Floats:
    """A list of numbers, as schedules and audio nodes give it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "make", ("FLOATS",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {"required": {"numbers": ("STRING", {"multiline": True})}}

    def make(self, numbers):
        return (json.loads(numbers),)


class Mask:
    """A mask of any shape: 1 in the left half, and `spoil` in one pixel if there is any."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "make", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"shape": ("STRING", {}), "spoil": ("STRING", {"default": ""})}}

    def make(self, shape, spoil):
        mask = torch.zeros(json.loads(shape))
        mask[..., : -(-mask.shape[-1] // 2)] = 1
        if spoil:
            mask[..., 0, 0] = float(spoil)
        return (mask,)


NODES = {kind.__name__: kind for kind in (Floats, Mask)}
