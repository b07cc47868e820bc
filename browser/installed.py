"""The list of what is installed: every atlas and dictionary, those that cannot be read with what is wrong."""

from __future__ import annotations

from typing import Any

from ..atlas import Atlas, AtlasError
from ..atlas.reader import ORDERS
from ..dictionaries import DictionaryFileError
from .refusal import RefusedError
from .shelf import About, Shelf, about, about_atlas, told

PATIENCE = 0.5
"""Seconds that telling what belongs together may take; what takes longer is said the next time."""
_TEXT = 200


def installed(shelf: Shelf) -> dict[str, Any]:
    """All atlases and dictionaries. `pending` says that it is not yet known of all which belong together."""
    atlases: dict[str, dict[str, Any]] = {}
    prints: dict[str, str] = {}
    kinds: dict[str, About] = {}
    for name in shelf.atlases():
        try:
            atlas = shelf.atlas(name)
            atlases[name] = _atlas(name, atlas)
            prints[name], kinds[name] = atlas.header["fingerprint"], about_atlas(atlas.header)
        except (AtlasError, OSError) as error:
            atlases[name] = {"id": name, "title": name, "problem": told(error, name)}
        except RefusedError:
            continue  # it went away meanwhile
    dictionaries: dict[str, dict[str, Any]] = {}
    alike = []
    for name in shelf.dictionaries():
        try:
            header = shelf.header(name)
            dictionaries[name] = _dictionary(name, header)
            alike += [name] if about(header) in kinds.values() else []
        except (DictionaryFileError, OSError) as error:
            dictionaries[name] = {"name": name, "problem": told(error, name)}
        except RefusedError:
            continue
    found = shelf.fingerprints(alike, PATIENCE)
    _match(atlases, dictionaries, prints, found)
    return {
        "atlases": [_ATLAS | each for each in atlases.values()],
        "dictionaries": [_DICTIONARY | each for each in dictionaries.values()],
        "pending": None in found.values(),
    }


_ATLAS: dict[str, Any] = {
    **{"id": "", "title": "", "features": 0, "n_features": 0, "site": "", "kind": "", "model": ""},
    **{"grid": [0, 0], "size": [0, 0], "orders": [], "scores": [], "dictionary": None, "problem": None},
}
_DICTIONARY: dict[str, Any] = {
    **{"name": "", "kind": "", "site": "", "n_features": 0, "model": "", "atlas": None, "problem": None},
}


def _atlas(name: str, atlas: Atlas) -> dict[str, Any]:
    kind, site, n_features = about_atlas(atlas.header)
    return {
        "id": name,
        "title": name,
        "features": atlas.count(),
        "n_features": n_features,
        "site": site[:_TEXT],
        "kind": kind[:_TEXT],
        "model": _model_name(atlas.header["dictionary"].get("model")),
        "grid": list(atlas.grid),
        "size": list(atlas.size),
        "orders": list(ORDERS),
        "scores": atlas.score_names(),
    }


def _dictionary(name: str, header: dict[str, Any]) -> dict[str, Any]:
    kind, site, n_features = about(header)
    model = _model_name(header["model"])
    return {"name": name, "kind": kind, "site": site, "n_features": n_features, "model": model}


def _match(
    atlases: dict[str, dict[str, Any]],
    dictionaries: dict[str, dict[str, Any]],
    prints: dict[str, str],
    found: dict[str, str | None],
) -> None:
    """Say of each atlas which dictionary it describes, and the other way; of several the first."""
    for name, own in found.items():
        for atlas, print_ in prints.items():
            if own == print_:
                atlases[atlas].setdefault("dictionary", name)
                dictionaries[name].setdefault("atlas", atlas)


def _model_name(model: Any) -> str:
    """What a header calls a model."""
    name = model.get("name") if isinstance(model, dict) else model
    return name[:_TEXT] if isinstance(name, str) else ""
