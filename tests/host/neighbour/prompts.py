"""Prompts in lists and batches, prompts and latents that do not fit, and what a capture holds."""

import json
from pathlib import Path

import folder_paths
import torch
from safetensors.torch import save_file


class Captions:
    """Lines as a list of texts, for which the host runs what comes next once each."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_IS_LIST = "neighbour", "make", ("STRING",), (True,)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {"required": {"lines": ("STRING", {"multiline": True})}}

    def make(self, lines):
        return (lines.splitlines(),)


class Batch:
    """A list of conditionings as a single one, with a batch inside."""

    CATEGORY, FUNCTION, RETURN_TYPES, INPUT_IS_LIST = "neighbour", "make", ("CONDITIONING",), True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"conditionings": ("CONDITIONING",)}}

    def make(self, conditionings):
        texts, options = zip(*(entry for conditioning in conditionings for entry in conditioning), strict=True)
        pooled = torch.cat([own["pooled_output"] for own in options])
        return ([[torch.cat(texts), options[0] | {"pooled_output": pooled}]],)


class SpoilConditioning:
    """A conditioning with NaN in it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "spoil", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def spoil(self, conditioning):
        return ([[text * float("nan"), options] for text, options in conditioning],)


class NoConditionings:
    """A list of conditionings with none in it."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_IS_LIST = "neighbour", "make", ("CONDITIONING",), (True,)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {}}

    def make(self):
        return ([],)


class NarrowLatent:
    """A latent of a model with four channels."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "make", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {}}

    def make(self):
        return ({"samples": torch.ones(1, 4, 16, 16)},)


class KeepCapture:
    """Saves what a capture holds of a latent's run: codes, sigma and rows of each record, in order."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "neighbour", "keep", (), True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"latent": ("LATENT",), "capture": ("FLUX_CAPTURE",), "name": ("STRING", {})}}

    def keep(self, latent, capture, name):
        recording = capture.run(latent["samples"])
        records = recording.records[recording.site()]
        kept, rows = {}, []
        for number, record in enumerate(records):
            kept[f"{number}.values"] = record.code.values.contiguous()
            kept[f"{number}.indices"] = record.code.indices.contiguous()
            kept[f"{number}.sigma"] = torch.tensor([record.moment.sigma])
            rows.append([list(record.moment.rows[i]) for i in record.batch_rows.tolist()])
        folder = Path(folder_paths.get_output_directory())
        save_file(kept, folder / f"{name}.safetensors", {"rows": json.dumps(rows)})
        return {"ui": {"runs": [len(capture)]}}

    @classmethod
    def IS_CHANGED(cls, **_):  # noqa: N802
        return float("nan")


OWN = (Captions, Batch, SpoilConditioning, NoConditionings, NarrowLatent, KeepCapture)
NODES = {kind.__name__: kind for kind in OWN}
