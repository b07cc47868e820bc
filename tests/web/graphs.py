"""The workflows that browser tests start from, in API form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HOST = Path(__file__).parents[1] / "host"
sys.path.insert(0, str(HOST))  # its modules import one another as scripts do

from workflows import DEMO, RED, Demo  # noqa: E402

OPEN = "a large circle at the center on a white background"
"""A caption that leaves the color open; the demo Flux was trained on circles like it."""

Graph = dict[str, dict[str, Any]]


def plain(caption: str = OPEN, seed: int = 4) -> Graph:
    """The demo Flux draws a picture, and nothing else."""
    made = Demo("")
    drawn = made.sample("Draws", made.model, made.text(caption), made.text(""), made.empty(), seed=seed)
    made.put("The picture", "SaveImage", 0, images=made.picture(drawn), filename_prefix="plain")
    return made.nodes


def watched(caption: str, seed: int = 4) -> Graph:
    """The same, and its features are read."""
    made = Demo("")
    dictionary = made.add("FluxtionaryLoadDictionary", dictionary=DEMO)
    tapped = made.add("FluxtionaryTap", model=made.model, dictionary=dictionary)
    drawn = made.sample("Draws", [tapped[0], 0], made.text(caption), made.text(""), made.empty(), seed=seed)
    image = made.picture(drawn)
    made.put("The picture", "SaveImage", 0, images=image, filename_prefix="watched")
    made.add("FluxtionaryReadFeatures", latent=drawn, capture=[tapped[0], 1], by="activation", count=12, image=image)
    return made.nodes


def shown(caption: str, seed: int = 4) -> Graph:
    """A run whose features are read, and a second one that is steered with one of them."""
    made = Demo("")
    dictionary = made.add("FluxtionaryLoadDictionary", dictionary=DEMO)
    shows, negative, latent = made.text(caption), made.text("", "Negative"), made.empty()
    tapped = made.add("FluxtionaryTap", model=made.model, dictionary=dictionary)
    drawn = made.sample("Draws", [tapped[0], 0], shows, negative, latent, seed=seed)
    image = made.picture(drawn)
    made.add("FluxtionaryReadFeatures", latent=drawn, capture=[tapped[0], 1], by="activation", count=12, image=image)
    steered = made.add(
        "FluxtionarySteerWithFeature", model=made.model, dictionary=dictionary, feature=RED, strength=0.4
    )
    again = made.sample("Steered", steered, shows, negative, latent, seed=seed)
    made.put("Steered", "SaveImage", 0, images=made.picture(again), filename_prefix="steered")
    return made.nodes


def steered(dictionary: str, feature: int = 0) -> Graph:
    """A dictionary and a steering node, to look at."""
    made = Demo("")
    loaded = made.add("FluxtionaryLoadDictionary", dictionary=dictionary)
    made.add("FluxtionarySteerWithFeature", model=made.model, dictionary=loaded, feature=feature, strength=0.4)
    return made.nodes
