"""Makes mutated and hostile files out of good ones and puts them through every reader."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file

from fluxtionary.dictionaries import (
    Dictionary,
    DictionaryFileError,
    Noise,
    SteeringVector,
    load_dictionary,
    load_vector,
    read_header,
    save_dictionary,
)
from fluxtionary.dictionaries.importers import import_dictionary

from .kinds import EXAMPLES, SITE, vector

FIXTURES = Path(__file__).parent / "importers" / "fixtures"
SLACK = 24 * 2**20
"""Bytes that a reader may take beside twice the size of its file: torch's and Python's own, on a first call."""
NUMBERS = (0, -1, 1, 7, 2**31, 2**40, 2**63, 10**30, 1.5, 1e308, True, None, "12", [], {})
JSONS = (b"", b"[", b"[" * 200_000, b"{" + b'"a":{' * 50_000, b"NaN", b"null", b"[]", b'"x"', b"1" * 6000, b"\xff\xfe")


class Attack:
    """What a hostile pickle would do."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


class Fuzzer:
    """Runs seeded trials in a folder; a wrong outcome is an `AssertionError` that names the trial."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.sentinel = folder / "code was run"
        self.sources: list[Path] = []
        for name, make in EXAMPLES.items():
            if name != "vector":
                self.sources.append(folder / f"{name}.safetensors")
                save_dictionary(make(), self.sources[-1])
        self.sources.append(folder / "vector.safetensors")
        save_dictionary(vector(), self.sources[-1])
        self.sources += sorted(path for path in FIXTURES.glob("*/*") if path.is_dir())
        self.sources += foreign_folders(folder / "foreign")
        self.place = folder / "trial"

    def run(self, trials: int) -> Counter:
        found: Counter = Counter()
        for trial in range(trials):
            rng = random.Random(f"{self.seed} {trial}")
            source = rng.choice(self.sources)
            target, what = self._mutated(source, rng)
            outcome = self._read(target, f"trial {trial} of seed {self.seed}: {source.name}, {what}")
            found[outcome] += 1
        assert not self.sentinel.exists(), "a file ran code"
        return found

    def _mutated(self, source: Path, rng: random.Random) -> tuple[Path, str]:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        target = self.place / source.name
        if source.is_dir():
            shutil.copytree(source, target)
            files = sorted(path for path in target.rglob("*") if path.is_file())
            victim = rng.choice(files)
        else:
            shutil.copy(source, target)
            victim = target
        what = [self._mutate(victim, rng) for _ in range(rng.choice((1, 1, 1, 2)))]
        return target, f"{victim.name}: {', '.join(what)}"

    def _mutate(self, path: Path, rng: random.Random) -> str:
        general = [truncated, bytes_changed, bytes_inserted, emptied, other_json]
        special = {".safetensors": SAFETENSORS, ".json": JSON_FILES, ".yaml": TEXTS}.get(path.suffix, PICKLES)
        change = rng.choice(general + special * 2)
        if change in (hostile_pickle, hostile_archive):
            change(path, rng, self.sentinel)
        else:
            change(path, rng)
        return change.__name__

    def _read(self, target: Path, name: str) -> str:
        readers = {True: (_imported,), False: (load_dictionary, load_vector, read_header, _imported)}
        outcomes = set()
        size = sum(path.stat().st_size for path in (target, *target.rglob("*")) if path.is_file())
        before = _start_peak()
        for reader in readers[target.is_dir()]:
            try:
                outcomes.add(_judged(reader(target)))
            except DictionaryFileError as error:
                assert target.name in str(error) or str(self.place) in str(error), f"{name}: names no file: {error}"
                outcomes.add("refused")
            except Exception as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        grown = _memory("VmHWM") - before
        assert grown <= 2 * size + SLACK, f"{name}: took {grown / 2**20:.0f} MB for a file of {size} bytes"
        return "loaded" if "loaded" in outcomes else "refused"


def _imported(path: Path) -> Dictionary:
    sites = {"l18": "double.18.img", "l9": "single.9.img", "blocks.1-1": SITE}
    return import_dictionary(path, next((site for part, site in sites.items() if part in path.name), SITE))


def foreign_folders(folder: Path) -> list[Path]:
    """A sound folder of each format that no library writes."""
    d, m = 8, 12
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    atoms = torch.nn.functional.normalize(random(m, d), dim=1)
    found = [folder / name for name in ("transformer_blocks.1-1", "unbox", "itda", "flux_itda")]
    for path in found:
        path.mkdir(parents=True)
    linear = {"encoder.weight": random(m, d), "encoder.bias": random(m), "decoder.weight": random(d, m)}
    (found[0] / "config.json").write_text(json.dumps({"features": d, "pages": m, "k": 4}))
    save_file(linear | {"bias": random(d)}, found[0] / "model.safetensors")
    settings = {"n_dirs_local": m, "d_model": d, "k": 4, "auxk": None, "dead_steps_threshold": 9}
    (found[1] / "config.json").write_text(json.dumps(settings))
    weights = {"encoder.weight": random(m, d), "decoder.weight": random(d, m)}
    torch.save(weights | {"pre_bias": random(d), "latent_bias": random(m)}, found[1] / "state_dict.pth")
    torch.save(atoms, found[2] / "atoms.pt")
    torch.save(torch.stack([torch.arange(m), torch.arange(m)], 1), found[2] / "atom_indices.pt")
    (found[2] / "metadata.yaml").write_text(f"activation_dim: {d}\ndict_size: {m}\nk: 4\nloss_threshold: 0.1\n")
    (found[3] / "cfg.json").write_text(
        json.dumps({"dictionary_size": m, "d_model": d, "target_l0": 4, "subtract_mean": False})
    )
    means = {"mean_x": random(d), "weight": random(d, d)}
    both = {"xs": atoms, "ys": atoms.clone(), **means, "mean_y": means["mean_x"].clone()}
    save_file(both, found[3] / "sae.safetensors")
    return found


def _judged(found: object) -> str:
    """A thing that was read is whole: finite, of the shapes it says, and able to encode."""
    if isinstance(found, SteeringVector):
        assert all(torch.isfinite(direction).all() for direction in found.directions.values())
        return "loaded"
    if isinstance(found, Dictionary):
        assert torch.isfinite(found.decoder).all() and found.decoder.shape[0] == found.n_features
        assert found.d_model <= 4096, "an invented width"
        code = found.encode(torch.ones(2, found.d_model), moment=Noise(0.5))
        assert code.values.shape == code.indices.shape
        assert not code.indices.numel() or int(code.indices.amax()) < found.n_features
        return "loaded"
    return "read"


def _start_peak() -> int:
    """Has the high-water mark start anew, and gives the memory in use; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def truncated(path, rng):
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def bytes_changed(path, rng):
    data = bytearray(path.read_bytes())
    most = len(data) if rng.random() < 0.5 else min(len(data), 400)
    for _ in range(rng.randint(1, 6) if data else 0):
        data[rng.randrange(most)] = rng.randrange(256)
    path.write_bytes(bytes(data))


def bytes_inserted(path, rng):
    data = path.read_bytes()
    place = rng.randrange(len(data) + 1)
    path.write_bytes(data[:place] + rng.randbytes(rng.randint(1, 40)) + data[place:])


def emptied(path, rng):
    path.write_bytes(b"" if rng.random() < 0.5 else bytes(rng.randrange(2000)))


def other_json(path, rng):
    path.write_bytes(rng.choice(JSONS))


def _parts(path):
    """Header object and data of a safetensors file, or None where an earlier mutation broke it."""
    data = path.read_bytes()
    try:
        length = struct.unpack("<Q", data[:8])[0]
        return json.loads(data[8 : 8 + length]), data[8 + length :]
    except (struct.error, ValueError, MemoryError, OverflowError, RecursionError):
        return None


def _write(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def claimed_shape(path, rng):
    """A shape or an offset that the data does not have."""
    if parts := _parts(path):
        header, data = parts
        names = [name for name in header if name != "__metadata__" and isinstance(header[name], dict)]
        if names:
            entry = header[rng.choice(names)]
            field = rng.choice(("shape", "data_offsets", "dtype"))
            if field == "dtype":
                entry["dtype"] = rng.choice(("F64", "F16", "I64", "U8", "BOOL", "F8_E4M3", "X"))
            else:
                values = list(entry.get(field) or [0])
                values[rng.randrange(len(values))] = rng.choice(NUMBERS)
                entry[field] = values
        _write(path, header, data)


def huge_claim(path, rng):
    """One tensor more, of terabytes, consistent in itself."""
    if parts := _parts(path):
        header, data = parts
        n = rng.choice((2**33, 2**38))
        header[rng.choice(("extra", "encoder", "decoder", "W_enc", "scale"))] = {
            "dtype": "F32",
            "shape": [n],
            "data_offsets": [len(data), len(data) + 4 * n],
        }
        _write(path, header, data)


def huge_header(path, rng):
    path.write_bytes(struct.pack("<Q", rng.choice((2**63, 2**40, 2**27, 99_000_000))) + path.read_bytes()[8:])


def swapped_keys(path, rng):
    if parts := _parts(path):
        header, data = parts
        names = [name for name in header if name != "__metadata__"]
        if len(names) > 1:
            a, b = rng.sample(names, 2)
            header[a], header[b] = header[b], header[a]
        _write(path, header, data)


def renamed_key(path, rng):
    if parts := _parts(path):
        header, data = parts
        name = rng.choice(list(header))
        header[rng.choice(("x", "weight", name + "2", ""))] = header.pop(name)
        _write(path, header, data)


def changed_metadata(path, rng):
    """One field of our own header, anywhere in it."""
    if (parts := _parts(path)) and isinstance(parts[0].get("__metadata__"), dict):
        header, data = parts
        about = header["__metadata__"]
        try:
            own = json.loads(about.get("header", "{}"))
        except (TypeError, ValueError, RecursionError):
            own = {}
        if isinstance(own, dict) and own and rng.random() < 0.8:
            _change_somewhere(own, rng)
            about["header"] = json.dumps(own)
        else:
            about["header"] = rng.choice(JSONS).decode(errors="replace")
        _write(path, header, data)


def not_finite(path, rng):
    if parts := _parts(path):
        header, data = parts
        data = bytearray(data)
        if len(data) >= 4:
            place = rng.randrange(len(data) // 4) * 4
            data[place : place + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"))))
        _write(path, header, bytes(data))


def _change_somewhere(values, rng):
    """Replace, remove or add one entry of nested JSON, in place."""
    spot = values
    while True:
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(spot[key], dict | list) and spot[key] and rng.random() < 0.6:
            spot = spot[key]
            continue
        if isinstance(spot, dict) and rng.random() < 0.2:
            del spot[key]
        else:
            spot[key] = rng.choice((*NUMBERS, "topk", "double.0.img", "relu", [1, 2], {"kind": 1}))
        return


def changed_json(path, rng):
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(values, dict | list):
        _change_somewhere(values, rng)
        path.write_text(json.dumps(values))


def changed_text(path, rng):
    lines = path.read_text(errors="replace").splitlines() or [""]
    place = rng.randrange(len(lines))
    lines[place] = rng.choice(("", "!!python/object/apply:os.system ['true']", "a: &a [*a]", ": :", "k: 1e999", "- x"))
    path.write_text("\n".join(lines))


def hostile_pickle(path, rng, sentinel):
    """A plain pickle that would run code, or is nothing but depth."""
    if rng.random() < 0.7:
        path.write_bytes(pickle.dumps(Attack(sentinel), protocol=rng.choice((0, 2, 4))))
    else:
        path.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"." + b"a" * 100)


def hostile_archive(path, rng, sentinel):
    """A torch archive whose pickle would run code."""
    buffer = io.BytesIO()
    torch.save({"encoder.weight": Attack(sentinel)}, buffer)
    path.write_bytes(buffer.getvalue())


def bomb(path, rng):
    """A zip that unpacks to far more than it has."""
    path.write_bytes(_bomb())


@cache
def _bomb():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200 * 2**20))
        archive.writestr("archive/version", "3")
    return file.getvalue()


def rebuilt(path, rng):
    """A sound torch file whose tensors are of other shapes, types or values."""
    try:
        state = torch.load(path, weights_only=True)
    except Exception:  # an earlier mutation broke it
        return
    flat = state if isinstance(state, dict) else {"x": state}
    tensors = [n for n, v in flat.items() if isinstance(v, torch.Tensor) and v.layout == torch.strided]
    if not tensors:
        return
    name = rng.choice(tensors)
    value = flat[name]
    changes = (
        lambda: torch.full_like(value.float(), float("nan")),
        lambda: value.double(),
        lambda: value.to(torch.int8),
        lambda: value.flatten()[:-1].clone(),
        lambda: torch.zeros(0),
        lambda: torch.zeros(1).expand(2**20, 2**10),
        lambda: value.to_sparse() if value.ndim else value,
        lambda: "text",
        lambda: None,
    )
    flat[name] = rng.choice(changes)()
    torch.save(flat if isinstance(state, dict) else flat["x"], path)


def other_safetensors(path, rng):
    save_file({"decoder": torch.ones(2, 3)}, path, {"format": rng.choice(("pt", "fluxtionary"))})


SAFETENSORS = [
    claimed_shape,
    huge_claim,
    huge_header,
    swapped_keys,
    renamed_key,
    changed_metadata,
    changed_metadata,
    not_finite,
    other_safetensors,
    hostile_pickle,
]
JSON_FILES = [changed_json, changed_json, changed_json, changed_json]
TEXTS = [changed_text]
PICKLES = [hostile_pickle, hostile_archive, bomb, rebuilt, rebuilt]
