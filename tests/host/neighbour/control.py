"""What other packs add inside the model: a ControlNet's residuals, and more text."""

from __future__ import annotations

import torch
from comfy.controlnet import ControlBase


class Residuals(ControlBase):
    """Adds fixed residuals, other ones after each block, to the picture's tokens of double and single blocks."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        tokens = -(-x_noisy.shape[-2] // 2) * -(-x_noisy.shape[-1] // 2)
        generator = torch.Generator().manual_seed(0)

        def residuals(blocks):
            return [
                self.size * torch.randn(1, tokens, 192, generator=generator).expand(len(x_noisy), -1, -1)
                for _ in range(blocks)
            ]

        return {"input": residuals(2), "output": residuals(4)}

    def copy(self):
        return Residuals(self.size)


class Control:
    """A conditioning with a ControlNet of its own."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "control", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {"required": {"conditioning": ("CONDITIONING",), "size": ("FLOAT", {"default": 1.0})}}

    def control(self, conditioning, size):
        return ([[text, values | {"control": Residuals(size)}] for text, values in conditioning],)


class LongerText:
    """A MODEL that appends tokens to its text by itself, after the host has counted it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "lengthen", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "tokens": ("INT", {"default": 7})}}

    def lengthen(self, model, tokens):
        def more(values):
            txt, ids = values["txt"], values["txt_ids"]
            return values | {
                "txt": torch.cat([txt, txt[:, :tokens]], 1),
                "txt_ids": torch.cat([ids, ids[:, :tokens]], 1),
            }

        clone = model.clone()
        clone.set_model_post_input_patch(more)
        return (clone,)


NODES = {kind.__name__: kind for kind in (Control, LongerText)}
