"""Files and folders that commands write: refused before hours of work rather than after, and whole or not there."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutputError(ValueError):
    """An output that cannot or must not be written."""


def check_writable(path: Path, overwrite: bool) -> None:
    """Refuse an output before hours of work rather than after."""
    if path.is_dir():
        raise OutputError(f"{path}: expected a file to write, found a folder")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already: choose another --out, or pass --overwrite")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()  # asking permission is not enough: root has it on read-only disks
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {parent}: {error.strerror}; choose another --out") from error


@contextmanager
def new_folder(path: Path, overwrite: bool, marker: str) -> Iterator[Path]:
    """A folder that appears whole: work goes on beside it, and takes its name when all is done."""
    if path.exists():
        if not path.is_dir():
            raise OutputError(f"{path}: expected a folder to write, found a file")
        ours = (path / marker).exists() or not any(path.iterdir())
        if not (ours and overwrite) and any(path.iterdir()):
            hint = "pass --overwrite" if ours else f"it holds no {marker}, so --overwrite would not replace it either"
            raise OutputError(f"{path} exists already: choose another --out; {hint}")
    check_writable(path / marker, overwrite=True)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    try:
        yield partial
    except BaseException:
        if any(partial.iterdir()):
            kept = path.with_name(f"{path.name}.unfinished")
            shutil.rmtree(kept, ignore_errors=True)
            partial.rename(kept)
            print(f"what was finished so far is in {kept}", file=sys.stderr)
        else:
            partial.rmdir()
        raise
    if path.exists():
        shutil.rmtree(path)
    partial.chmod(0o755)
    partial.rename(path)
