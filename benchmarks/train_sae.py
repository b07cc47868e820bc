"""A training step of a TopK SAE beside those of other libraries: `python benchmarks/train_sae.py [--json]`.

Each step is taken in a process of its own, all in one environment (made at the first call, apart from the project's),
in turns: every round has one process of each contestant, so that a machine that slows down does so for all. Each runs
in its fastest mode, found by three timed steps. `sae_contestants.py` says what they have in common. What is reported:

ratios               our tokens/s over theirs, the median over the rounds
fvu_over_best        our error on held-out tokens after 200 steps over the best of theirs; at the full size against the
                     fastest of them (all with --all-fvu), at a small one against all; the worse of the two
memory_over_saelens  our peak memory over SAELens's, the median over the rounds: beyond what a process holds after it
                     imported torch and the library and made the tokens (`peak_bytes_training`), so that a library
                     that imports much is not charged for it; `peak_bytes_process` has it all
gpu                  the same figures on a GPU, or why there are none

Partial results lie beside the environment and an interrupted run goes on from them. The errors of the other libraries,
which do not change, are kept for later runs. `cores_used` well below the machine's cores means that it was busy with
something else, and that the ratios are worth little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REQUIRED = ("torch==2.13.0", "eai-sparsify==1.3.*", "sae-lens==6.54.*", "dictionary-learning==0.1.*")
"""torch exactly, and for all that they depend on: another would bring gigabytes, and another speed."""
PEERS = ("sparsify", "saelens", "dictionary_learning")
CONTESTANTS = ("ours", *PEERS)
MODES = {
    "ours": ("float32", "bfloat16"),
    "sparsify": ("float32", "bfloat16"),
    "saelens": ("float32", "float32 sparse", "bfloat16"),
    "dictionary_learning": ("float32", "bfloat16"),
}
SMALL = (768, 3072)
"""Channels and features of the size at which all learn."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def peers_python(folder: Path) -> Path:
    """The interpreter of the environment that all run in; makes it where there is none."""
    python = folder / "bin" / "python"
    mark = folder / ".made-for"
    if mark.exists() and mark.read_text().split() == list(REQUIRED):
        return python
    say(f"making an environment of the other libraries in {folder} (about 2.3 GB)")
    if not python.exists():  # one that was interrupted goes on
        venv.create(folder, with_pip=True, symlinks=True)
    constraint = folder / "constraint.txt"
    constraint.write_text(REQUIRED[0] + "\n")
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    needed = (*REQUIRED, "numpy", "safetensors", "tqdm")
    subprocess.run([*pip, "install", "--constraint", str(constraint), *needed], check=True, stdout=sys.stderr)
    # some of them ask for it, but beside a torch for CPUs it keeps transformers from being imported
    subprocess.run([*pip, "uninstall", "--yes", "torchvision"], check=True, stdout=sys.stderr)
    mark.write_text("\n".join(REQUIRED))
    return python


class Store:
    """Results by name in a JSON file, written after each."""

    def __init__(self, path: Path, fresh: bool):
        self.path = path
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not fresh else {}

    def get(self, name: str, measure: Callable[[], dict[str, Any]]) -> Any:
        """What is stored under the name, else what `measure` gives."""
        if name in self.found:
            return self.found[name]
        started = time.monotonic()
        found = measure()
        say(f"{name}: {brief(found)} ({time.monotonic() - started:.0f} s)")
        if "failed" not in found:  # what was out of memory may have more the next time
            self.found[name] = found
            self._write()
        return found

    def forget(self, keep: Callable[[str, Any], bool]) -> None:
        self.found = {name: found for name, found in self.found.items() if keep(name, found)}
        self._write()

    def _write(self) -> None:
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.found, indent=1))
        unfinished.replace(self.path)


def brief(found: dict[str, Any]) -> str:
    shown = {
        name: found[name] for name in ("fvu", "step_seconds", "slower_than", "unsupported", "failed") if name in found
    }
    return ", ".join(f"{name} {x:.4g}" if isinstance(x, float) else f"{name}: {x}" for name, x in shown.items())


def run_child(python: Path, task: dict[str, Any], limit: float | None = None) -> dict[str, Any]:
    """What `sae_contestants.py` answers; past the `limit` in seconds, that it is slower."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "TOKENIZERS_PARALLELISM": "false",
    }
    environment.pop("PYTHONPATH", None)  # what belongs to another environment
    if task["device"] == "cpu":
        environment["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernels, where there are any, are for GPUs
    started = time.monotonic()
    command = [str(python), str(HERE / "sae_contestants.py"), json.dumps(task)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"slower_than": limit}
    if run.returncode:
        lines = run.stderr.strip().splitlines() or [f"ended with {run.returncode} and no message"]
        error = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
        return {"failed": (error or lines)[-1][:300]}
    return json.loads(run.stdout) | {"wall": time.monotonic() - started}


def wanted(found: dict[str, Any], name: str) -> dict[str, Any]:
    if "failed" in found:
        raise SystemExit(f"{name} failed: {found['failed']}")
    return found


class Race:
    """All measurements on one device."""

    def __init__(self, options: argparse.Namespace, python: Path, store: Store, device: str):
        self.options, self.python, self.store, self.device = options, python, store, device

    def run(
        self, name: str, mode: str, measure: str, d_model: int, features: int, limit: float | None = None, **more: Any
    ):
        options = self.options
        task = {"name": name, "mode": mode, "measure": measure, "device": self.device, "d_model": d_model}
        task |= {"features": features, "k": options.k, "batch": options.batch, "total": options.fvu_steps}
        return run_child(self.python, task | more, limit)

    def probe(self, name: str) -> tuple[str, dict[str, Any]]:
        """The fastest mode, and what was found of each by a few timed steps."""
        options = self.options
        found: dict[str, Any] = {}
        limit = None
        for mode in MODES[name]:
            found[mode] = self.store.get(
                f"{self.device}/probe/{name}/{mode}",
                lambda mode=mode, limit=limit: self.run(
                    name, mode, "speed", options.d_model, options.features, limit, steps=3
                ),
            )
            if "wall" in found[mode] and limit is None:
                # ample for what is faster, lest the load of a moment decide; emulated types take minutes
                limit = 3 * found[mode]["wall"] + 30
        timed = {mode: one["step_seconds"] for mode, one in found.items() if "step_seconds" in one}
        if not timed:
            raise SystemExit(f"{name} runs in no mode on {self.device}: {json.dumps(found, indent=1)}")
        return min(timed, key=timed.__getitem__), found

    def fvu(self, name: str, mode: str, size: tuple[int, int]) -> dict[str, Any]:
        found = self.store.get(
            f"{self.device}/fvu/{size[0]}x{size[1]}/{name}/{mode}", lambda: self.run(name, mode, "fvu", *size)
        )
        return wanted(found, name)

    def measure(self) -> dict[str, Any]:
        options = self.options
        probes = {name: self.probe(name) for name in CONTESTANTS}
        modes = {name: mode for name, (mode, _) in probes.items()}
        warm_up = 2 if self.device == "cpu" else 10  # a GPU's kernels are compiled and tried in the first
        steps = options.steps if self.device == "cpu" else 10 * options.steps
        rounds = []
        for number in range(options.rounds):
            found = {}
            for name in CONTESTANTS:
                found[name] = self.store.get(
                    f"{self.device}/round/{number}/{name}",
                    lambda name=name: self.run(
                        name, modes[name], "speed", options.d_model, options.features, warm_up=warm_up, steps=steps
                    ),
                )
                wanted(found[name], name)
            rounds.append(found)

        def median(figure: Any) -> float:
            return statistics.median(figure(one) for one in rounds)

        def each(figure: str) -> dict[str, float]:
            return {name: median(lambda one, name=name: one[name][figure]) for name in CONTESTANTS}

        seconds = each("step_seconds")
        fastest = min(PEERS, key=seconds.__getitem__)
        full = (options.d_model, options.features)
        some = PEERS if options.all_fvu or self.device == "cuda" else (fastest,)
        errors = {
            f"{size[0]}x{size[1]}": {name: self.fvu(name, modes[name], size)["fvu"] for name in ("ours", *peers)}
            for size, peers in ((SMALL, PEERS), (full, some))
        }
        over_best = {
            size: found["ours"] / min(error for name, error in found.items() if name != "ours")
            for size, found in errors.items()
        }
        return {
            "ratios": {
                f"vs_{name}": median(lambda one, name=name: one[name]["step_seconds"] / one["ours"]["step_seconds"])
                for name in PEERS
            },
            "fvu_over_best": max(over_best.values()),
            "memory_over_saelens": median(
                lambda one: one["ours"]["peak_bytes_training"] / one["saelens"]["peak_bytes_training"]
            ),
            "tokens_per_second": {name: options.batch / spent for name, spent in seconds.items()},
            "step_seconds": seconds,
            "round_step_seconds": [{name: one[name]["step_seconds"] for name in CONTESTANTS} for one in rounds],
            "cores_used": each("cores"),
            "modes": modes,
            "probed": {name: {mode: probed(one) for mode, one in found.items()} for name, (_, found) in probes.items()},
            "fvu": errors,
            "fvu_over_best_by_size": over_best,
            "peak_bytes_training": each("peak_bytes_training"),
            "peak_bytes_process": each("peak_bytes_process"),
            "versions": {"torch" if name == "ours" else name: rounds[0][name]["version"] for name in CONTESTANTS},
        }


def probed(found: dict[str, Any]) -> Any:
    """Seconds a step, or why there is no such figure."""
    if "slower_than" in found:
        return f"stopped after {found['slower_than']:.0f} s"
    return found.get("step_seconds") or found.get("unsupported") or found["failed"]


def digest_of_ours() -> str:
    """Of the code that is measured: what was found of other code is no partial result."""
    folders = [HERE.parent / name for name in ("dictionaries", "residual", "training")]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def digest_of_task() -> str:
    """Of what every contestant runs."""
    return hashlib.sha256((HERE / "sae_contestants.py").read_bytes() + (HERE / "mixtures.py").read_bytes()).hexdigest()


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    field = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
    bfloat16 = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in field.get("flags", "").split()]
    return {"cpu": field.get("model name", "unknown"), "cores": os.cpu_count(), "bfloat16": bfloat16}


def cuda_name(python: Path) -> str:
    """Name of the GPU that the environment's torch sees; empty where it sees none."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fluxtionary" / "peers"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--device", choices=("all", "cpu", "cuda"), default="all", help="all: a GPU too if there is one"
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contestant that are timed")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process, ten times as many on a GPU")
    parser.add_argument("--fvu-steps", type=int, default=200, help="steps before errors are compared")
    parser.add_argument("--all-fvu", action="store_true", help="errors of all at the full size too: half an hour more")
    parser.add_argument("--d-model", type=int, default=3072)
    parser.add_argument("--features", type=int, default=12_288)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the environment and of partial results")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs found")
    return parser.parse_args()


def main() -> None:
    options = parse()
    python = peers_python(options.cache)
    settings = {name: getattr(options, name) for name in ("d_model", "features", "k", "batch", "steps", "fvu_steps")}
    found_machine = machine()
    key = json.dumps([settings, found_machine, REQUIRED, digest_of_task()])
    store = Store(options.cache / f"train_sae-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json", options.fresh)
    own = digest_of_ours()
    if store.found.get("code") != own:
        store.forget(of_peers)
        store.found["code"] = own
    found: dict[str, Any] = {}
    gpu = cuda_name(python)
    if options.device != "cuda":
        found |= Race(options, python, store, "cpu").measure()
    if options.device == "cpu":
        found["gpu"] = {"skipped": "--device cpu"}
    elif gpu:
        found["gpu"] = Race(options, python, store, "cuda").measure() | {"device": gpu}
    else:
        found["gpu"] = {"skipped": "torch finds no GPU here"}
    store.forget(of_peers)
    found |= {"settings": settings | {"rounds": options.rounds}, "machine": found_machine}
    if options.json:
        print(json.dumps(found))
        return
    for where in (found, found["gpu"]):
        if "ratios" in where:
            show(where)


def of_peers(name: str, found: Any) -> bool:
    """Whether a result stays true in later runs: errors of the other libraries. Seconds do not."""
    parts = name.split("/")
    return len(parts) > 1 and parts[1] == "fvu" and "ours" not in parts


def show(found: dict[str, Any]) -> None:
    for name in CONTESTANTS:
        print(f"{name:20} {found['tokens_per_second'][name]:9.0f} tokens/s  ", end="")
        print(f"{found['peak_bytes_training'][name] / 1e9:6.2f} GB  {found['modes'][name]}")
    print(", ".join(f"{name} {ratio:.2f}" for name, ratio in found["ratios"].items()))
    for size, errors in found["fvu"].items():
        print(f"fvu {size}: " + ", ".join(f"{name} {error:.4f}" for name, error in errors.items()))
    print(f"fvu over the best {found['fvu_over_best']:.4f}, memory over SAELens {found['memory_over_saelens']:.2f}")


if __name__ == "__main__":
    main()
