"""What a node that reads a run tells the browser of it, so that its picture can be looked into there."""

from __future__ import annotations

import logging
from typing import Any

import comfy.latent_formats
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor, tensor

from .load_dictionary import file_of
from .views import Viewed

logger = logging.getLogger(__name__)


def image_input() -> io.Input:
    """The picture of the run, which is shown on the node."""
    return io.Image.Input(
        "image",
        optional=True,
        tooltip="The picture itself, to be shown on this node: click into it to see which features are there. "
        "Without it a rough one is made of the latent.",
    )


def shown(seen: Viewed, latent: Tensor, image: Tensor | None) -> dict[str, list[dict[str, Any]]]:
    """For a node's `ui`: the view of a run, with which the browser asks on. Which atlas goes with it costs time to
    find out, so that is told when it asks."""
    try:
        from .routes import browser

        view = browser().views.show(seen.recording, seen.site, seen.view.role, latent, image)
        if view is None:
            return {}
        view.path, view.preview = file_of(seen.dictionary), rough
        return {"fluxtionary_view": [view.said(None, None)]}
    except Exception as error:  # what is shown beside the graph is no reason to stop it
        logger.warning("no picture to click into: %s", error)
        return {}


def rough(latent: Tensor) -> Tensor:
    """A latent `[channels, h, w]` as colors `[h, w, 3]`, as ComfyUI shows Flux while it samples."""
    form = comfy.latent_formats.Flux()
    inside = form.process_in(latent.detach().float().cpu())
    weight = tensor(form.latent_rgb_factors).T
    return (F.linear(inside.movedim(0, -1), weight, tensor(form.latent_rgb_factors_bias)) + 1) / 2
