"""Runs that a node has shown, for as long as the graph holds them: which features are active where in them."""

from __future__ import annotations

import secrets
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from torch import Tensor

from ..dictionaries import Dictionary
from ..residual import Site
from ..residual.block_chain import token_grid
from ..residual.capture import Recording
from ..residual.reading import PATCH, heat_maps, pictures
from ..residual.reading import View as Part
from .pictures import Picture, map_picture, webp
from .refusal import NOT_FOUND, RefusedError

VIEWS = 16
"""The most runs that are known at a time."""
_FILES = 64
"""The most pictures of a run that are kept as files."""
GONE = "this run is no longer in memory: run the graph again"

Preview = Callable[[Tensor], Tensor]
"""Makes a rough picture `[h, w, 3]` of a latent `[channels, h, w]`."""


class View:
    """One run as one node shows it. What the graph holds is held weakly: recording, latent and picture.

    Attributes:
        id: a name that tells nothing.
        site, role: which place in the model, and whose rows.
        path: the file of the dictionary; None where it is not known.
    """

    def __init__(self, recording: Recording, site: Site, role: str, latent: Tensor, image: Tensor | None):
        assert recording.latent is not None
        self.id = secrets.token_urlsafe(9)
        self._recording, self._latent = weakref.ref(recording), weakref.ref(latent)
        self._image = None if image is None else weakref.ref(image)
        self.site, self.role = site, role
        self.pictures = max(pictures(recording, site), default=0) + 1
        self.grid = token_grid(*recording.latent, PATCH)
        self.path: Path | None = None
        self.preview: Preview | None = None
        self._files: dict[int, Picture] = {}

    @property
    def alive(self) -> bool:
        return self._recording() is not None

    @property
    def recording(self) -> Recording:
        """Raises `RefusedError` where the graph has let go of it."""
        found = self._recording()
        if found is None:
            raise RefusedError(NOT_FOUND, GONE)
        return found

    @property
    def dictionary(self) -> Dictionary:
        found = self.recording.dictionaries[self.site]
        if found is None:
            raise RefusedError(NOT_FOUND, f"at {self.site} activations were kept, not codes: give the Tap a dictionary")
        return found

    def is_of(self, recording: Recording, site: Site, role: str, image: Tensor | None) -> bool:
        own = None if self._image is None else self._image()
        return self._recording() is recording and (self.site, self.role) == (site, role) and own is image

    def said(self, atlas: str | None, name: str | None) -> dict[str, Any]:
        """What a browser is told of it."""
        recording, dictionary = self.recording, self.dictionary
        return {
            "id": self.id,
            "site": str(self.site),
            "rows": self.role,
            "steps": recording.steps,
            "sigmas": list(recording.sigmas),
            "pictures": self.pictures,
            "grid": list(self.grid),
            "dictionary": {"kind": dictionary.kind, "n_features": dictionary.n_features, "name": name},
            "atlas": atlas,
            "image": self._image is not None,
        }

    def picture(self, number: int) -> Picture:
        """A picture of the batch: the one that was given, else a rough one of the latent."""
        if number in self._files:
            return self._files[number]
        source = self._latent if self._image is None else self._image
        batch = source()
        if batch is None or not len(batch):
            raise RefusedError(NOT_FOUND, GONE)
        one = batch[number % len(batch)]
        if self._image is None:
            if self.preview is None:
                raise RefusedError(NOT_FOUND, "this run came without a picture: connect `image`")
            one = self.preview(one)
        if len(self._files) >= _FILES:
            self._files.clear()
        self._files[number] = webp(one[..., :3])
        return self._files[number]

    def map(self, feature: int, picture: int, first: int, last: int) -> Picture:
        """Where a feature is active from the first to the last step, on the token grid of one picture.

        Colors are by the peak of its mean over all steps, so that steps compare.
        """
        maps, steps = heat_maps(self.recording, self.site, feature, Part(picture, self.role))
        chosen = [place for place, step in enumerate(steps) if first <= step <= last]
        if not chosen:
            raise RefusedError(
                NOT_FOUND, f"steps {first} to {last}: expected some of those seen, found {steps}; ask for some of these"
            )
        return map_picture(maps[chosen].mean(0), float(maps.mean(0).abs().max()))


class Views:
    """The runs that were shown last. May be used by many threads at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._views: OrderedDict[str, View] = OrderedDict()

    def show(
        self, recording: Recording, site: Site, role: str, latent: Tensor, image: Tensor | None = None
    ) -> View | None:
        """A view of a run, the same for the same; None at a text site, whose tokens have no place in the picture."""
        if site.stream != "img" or recording.latent is None or recording.dictionaries[site] is None:
            return None
        with self._lock:
            for view in list(self._views.values()):
                if not view.alive:
                    del self._views[view.id]
                elif view.is_of(recording, site, role, image):
                    self._views.move_to_end(view.id)
                    return view
            view = View(recording, site, role, latent, image)
            self._views[view.id] = view
            while len(self._views) > VIEWS:
                self._views.popitem(last=False)
            return view

    def view(self, name: str) -> View:
        """Raises `RefusedError` for one that is not known any more."""
        with self._lock:
            found = self._views.get(name)
        if found is None or not found.alive:
            raise RefusedError(NOT_FOUND, GONE)
        return found
