"""What is installed: atlases and dictionaries, opened when they are asked for, and which of them belong together.

Names are looked up in the lists of what is there and never become part of a path.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from ..atlas import Atlas, AtlasError
from ..atlas.database import FILE
from ..dictionaries import Dictionary, DictionaryFileError, load_dictionary, read_header
from ..dictionaries.fingerprint import fingerprint
from .refusal import CONFLICT, NOT_FOUND, RefusedError

OPEN = 8
"""The most atlases that are held open."""
PIXELS = 2**22
"""The largest pictures that are shown: a page of them must not fill the memory of a browser."""
SECONDS = 3.0
"""How long one question to an atlas may take: a damaged one must not hold up the others."""
FRESH = 2.0
"""For so many seconds a list of what is installed is taken for true."""

Paths = Callable[[], Mapping[str, Path]]
"""What is installed now, by name."""
Thing = TypeVar("Thing")


class About(NamedTuple):
    """What tells at once that an atlas cannot be a dictionary's."""

    kind: str
    site: str
    n_features: int


def folders(roots: Iterable[Path]) -> dict[str, Path]:
    """The folders in some places, by name; of two of one name that of the first place."""
    found: dict[str, Path] = {}
    for root in roots:
        try:
            inside = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        except OSError:
            continue  # a place that is not there holds nothing
        for path in inside:
            found.setdefault(plain(path.name), path)
    return found


def plain(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are spelled out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Kept(OrderedDict[Any, Thing]):
    """A few things by key; the one longest unused goes first."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def use(self, key: Any) -> Thing | None:
        if key in self:
            self.move_to_end(key)
        return self.get(key)

    def keep(self, key: Any, thing: Thing) -> None:
        self[key] = thing
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)


class Shelf:
    """The atlases and dictionaries of one place. May be used by many threads at once."""

    def __init__(self, atlases: Paths, dictionaries: Paths):
        self._atlases, self._dictionaries = _Listed(atlases), _Listed(dictionaries)
        self._lock = Lock()
        self._open: Kept[Atlas] = Kept(OPEN)
        self._headers: Kept[dict[str, Any]] = Kept(1024)
        self._natural: Kept[Tensor | None] = Kept(OPEN)
        self._prints: Kept[Future[str]] = Kept(1024)
        self._prints_of: WeakKeyDictionary[Dictionary, Future[str]] = WeakKeyDictionary()
        self._worker = ThreadPoolExecutor(1, "fluxtionary-fingerprint")

    def atlases(self) -> list[str]:
        """Names of all that are installed now, in order."""
        return sorted(self._atlases.now())

    def dictionaries(self) -> list[str]:
        return sorted(self._dictionaries.now())

    def atlas(self, name: str) -> Atlas:
        """An installed atlas, opened. Raises `RefusedError` for a name that is none, `AtlasError` for a damaged one."""
        folder = self._atlases.path(name, "an installed atlas")
        key = (folder, *_state(folder / FILE))
        with self._lock:
            found = self._open.use(key)
        if found is None:
            found = _checked(Atlas.open(folder, seconds=SECONDS))
            with self._lock:
                self._open.keep(key, found)
        return found

    def header(self, name: str) -> dict[str, Any]:
        """What a dictionary's file says of itself. Raises `RefusedError`, `DictionaryFileError` where it is damaged."""
        path = self._dictionaries.path(name, "an installed dictionary")
        key = (path, *_state(path))
        with self._lock:
            found = self._headers.use(key)
        if found is None:
            found = read_header(path)[0]
            if found["kind"] == "vector":
                remedy = "a steering vector: move it into models/flux_steering_vectors"
                raise DictionaryFileError(path, "a dictionary", remedy)
            with self._lock:
                self._headers.keep(key, found)
        return found

    def natural(self, name: str) -> Tensor | None:
        """A dictionary's natural values `[n_features]`, where its file has them."""
        path = self._dictionaries.path(name, "an installed dictionary")
        key = (path, *_state(path))
        with self._lock:
            if key in self._natural:
                return self._natural.use(key)
        found = load_dictionary(path).natural
        with self._lock:
            self._natural.keep(key, found)
        return found

    def fingerprints(self, names: Iterable[str], patience: float) -> dict[str, str | None]:
        """Fingerprints of dictionaries that are found within so many seconds, those of damaged files left out.

        None for one that takes longer: it goes on being worked out, and is there when it is asked for later.
        """
        futures = {name: self._fingerprint(name) for name in names}
        wait(futures.values(), patience)
        found: dict[str, str | None] = {}
        for name, future in futures.items():
            if not future.done():
                found[name] = None
            elif future.exception() is None:
                found[name] = future.result()
        return found

    def atlas_of(self, dictionary: Dictionary, patience: float) -> str | None:
        """The name of a dictionary's atlas; None where there is none, or where telling takes longer."""
        own = About(dictionary.kind, dictionary.site, dictionary.n_features)
        alike = {name: header["fingerprint"] for name, header in self._readable() if about_atlas(header) == own}
        if not alike:
            return None
        with self._lock:
            future = self._prints_of.get(dictionary)
            if future is None:
                future = self._prints_of[dictionary] = self._worker.submit(fingerprint, dictionary)
        wait([future], patience)
        if not future.done() or future.exception() is not None:
            return None
        return next((name for name, print_ in alike.items() if print_ == future.result()), None)

    def name_of(self, path: Path | None) -> str | None:
        """The name of the installed dictionary that a file is."""
        return next((name for name, own in self._dictionaries.recent().items() if own == path), None)

    def dictionary_of(self, atlas: Atlas, patience: float = 0.0) -> str | None:
        """The name of the installed dictionary that an atlas describes, as far as it is known in so many seconds."""
        alike = [name for name, header in self._known_headers() if about(header) == about_atlas(atlas.header)]
        found = self.fingerprints(alike, patience)
        return next((name for name in alike if found.get(name) == atlas.header["fingerprint"]), None)

    def _readable(self) -> Iterable[tuple[str, dict[str, Any]]]:
        for name in sorted(self._atlases.recent()):
            try:
                yield name, self.atlas(name).header
            except (AtlasError, RefusedError, OSError):
                continue

    def _known_headers(self) -> Iterable[tuple[str, dict[str, Any]]]:
        for name in sorted(self._dictionaries.recent()):
            try:
                yield name, self.header(name)
            except (DictionaryFileError, RefusedError, OSError):
                continue

    def _fingerprint(self, name: str) -> Future[str]:
        path = self._dictionaries.path(name, "an installed dictionary")
        key = (path, *_state(path))
        with self._lock:
            found = self._prints.use(key)
            if found is None:
                found = self._worker.submit(lambda: fingerprint(load_dictionary(path)))
                self._prints.keep(key, found)
            return found


class _Listed:
    """What is installed, listed anew when the list has grown old."""

    def __init__(self, paths: Paths):
        self._paths, self._seen, self._until = paths, dict[str, Path](), -1.0

    def now(self) -> dict[str, Path]:
        self._seen = dict(self._paths())
        self._until = time.monotonic() + FRESH
        return self._seen

    def recent(self) -> dict[str, Path]:
        return self._seen if time.monotonic() < self._until else self.now()

    def path(self, name: str, expected: str) -> Path:
        found = self.recent().get(name)
        if found is None:
            raise RefusedError(
                NOT_FOUND, f"expected {expected}, found none called {name[:100]!r}; look at the list again"
            )
        return found


def about(header: Mapping[str, Any]) -> About:
    """What a dictionary's header says it is."""
    return About(header["kind"], header["sites"][0], header["n_features"])


def about_atlas(header: Mapping[str, Any]) -> About:
    """What an atlas's header says of its dictionary."""
    own = header["dictionary"]
    return About(own["kind"], own["site"], own["n_features"])


def _state(path: Path) -> tuple[int, int]:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _checked(atlas: Atlas) -> Atlas:
    height, width = atlas.size
    if height * width > PIXELS:
        expected, found = f"pictures of at most {PIXELS:,} pixels", f"{width}x{height}"
        atlas.close()
        raise AtlasError(atlas.folder, expected, found, "build it with smaller pictures")
    return atlas


def told(error: AtlasError | DictionaryFileError | OSError, name: str) -> str:
    """What is wrong with a file, by the name that it is known by instead of where it lies."""
    if isinstance(error, AtlasError):
        return f"{name}: expected {error.expected}, found {error.found}; {error.remedy}"
    if isinstance(error, DictionaryFileError):
        return f"{name}: expected {error.expected}, found {error.found}"
    return f"{name}: expected a file that can be read, found {error.strerror or type(error).__name__}"


def refused(error: AtlasError | DictionaryFileError | OSError, name: str) -> RefusedError:
    """The same as an answer."""
    status = NOT_FOUND if isinstance(error, LookupError) else CONFLICT
    return RefusedError(status, told(error, name))
