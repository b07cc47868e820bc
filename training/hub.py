"""Files of the Hugging Face hub as a local folder."""

from __future__ import annotations

import re
from pathlib import Path

from ..dictionaries import DictionaryFileError
from ..dictionaries.importers import IMPORTERS, saelens

_ID = re.compile(r"(\w[\w.-]*/[\w.-]+)((?:/[\w.-]+)*)/?", re.ASCII)


def local_folder(source: str) -> Path:
    """A local folder or file as it is; a hub id `owner/name` or `owner/name/folder` downloaded to the hub's own cache.

    Without a folder only a dictionary's files at the repository's root are fetched. Raises `DictionaryFileError` for
    what is neither, and where the hub cannot be reached or has no such folder.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    match = _ID.fullmatch(source)
    if not match or ".." in source.split("/"):
        raise DictionaryFileError(source, "a local folder or a hub id (owner/name, or owner/name/folder)", "neither")
    repository, inside = match[1], match[2].strip("/")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        wanted = "huggingface_hub to download it (pip install 'fluxtionary[train]')"
        raise DictionaryFileError(source, wanted, "no such local folder, and none installed") from error
    names = {name for importer in IMPORTERS.values() for name in importer.names} | {saelens.SCALER, saelens.WHITENING}
    try:
        snapshot = snapshot_download(repository, allow_patterns=[f"{inside}/*"] if inside else sorted(names))
    except Exception as error:  # the hub's library raises its own, requests' and httpx's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        found = f"no such local folder, and {type(error).__name__}: {reason}"
        raise DictionaryFileError(source, "its files from the Hugging Face hub", found) from error
    folder = Path(snapshot) / inside
    if not folder.is_dir():
        raise DictionaryFileError(source, f"a folder {inside} in the hub's {repository}", "none of that name")
    return folder
