"""Pursuit beside the released methods: `python benchmarks/pursuit.py [--json]`.

Orthogonal matching pursuit against the released matching pursuit (ITDA), gradient pursuit against the released dense
one (the Flux paper), on the same rows, alternating in one process; on a GPU if there is one. Atoms are data points.
A dictionary makes its Gram matrix once and keeps it, so ours are given it: making it is measured apart
(`gram_seconds`). What is reported:

ratios          tokens/s of ours over theirs, the worst over the sizes; each size's is the median over the rounds
fvu_gain        their fvu minus ours at the same k, the worst over the sizes (fvu: DESIGN's measure)
fvu_gain_equal_l0  the same with ours given only as many atoms a row as theirs has active, on average
peak_over_gram_gb  growth of resident memory (GPU: of allocated memory) while ours run, beyond rows, atoms and Gram,
                in a fresh process, the worst over methods and sizes
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from mixtures import Mixtures
from released_pursuit import released_gradient_pursuit, released_matching_pursuit
from timing import timed
from torch import Tensor

from fluxtionary.dictionaries.pursuit import gram_of, pursue
from fluxtionary.dictionaries.sparse_code import SparseCode

D_MODEL = 3072
SIZES = ((8192, 32), (8192, 64), (16384, 32), (16384, 64))
PAIRS = {"omp": ("omp_vs_released_mp", released_matching_pursuit), "gp": ("gp_vs_dense_gp", released_gradient_pursuit)}
"""Ours, the name of its ratio, and theirs."""


def problem(n_atoms: int, rows: int, device: str) -> tuple[Tensor, Tensor]:
    """Rows `[rows, D_MODEL]` and atoms `[n_atoms, D_MODEL]` of length 1, drawn alike."""
    source = Mixtures(D_MODEL, device)
    atoms = torch.cat([source.draw(4096) for _ in range(n_atoms // 4096)])
    return source.draw(rows), torch.nn.functional.normalize(atoms, dim=1)


def fvu(x: Tensor, coefficients: Tensor, atoms: Tensor) -> float:
    """Share of variance unexplained by `coefficients [n, n_atoms]`, each channel divided by its deviation."""
    std, mean = x.double().std(0), x.double().mean(0)
    left = (x - coefficients @ atoms).double() / std
    return float(left.square().sum() / ((x.double() - mean) / std).square().sum())


def l0(code: SparseCode | Tensor) -> float:
    """Mean count of active atoms."""
    values = code if isinstance(code, Tensor) else code.values
    return float((values != 0).sum(1).double().mean())


def compare(x: Tensor, atoms: Tensor, gram: Tensor, k: int, rounds: int) -> dict[str, dict]:
    """Tokens/s, fvu and realised L0 of each of ours and theirs; a first, short round warms up."""
    found: dict[str, dict] = {}
    device = x.device.type
    for method, (_, released) in PAIRS.items():
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        released(x[:8], atoms, 2)
        pursue(x, atoms, k, method, gram=gram)
        for _ in range(rounds):
            theirs, spent = timed(lambda released=released: released(x, atoms, k), device)
            seconds["theirs"].append(spent)
            code, spent = timed(lambda method=method: pursue(x, atoms, k, method, gram=gram), device)
            seconds["ours"].append(spent)
        found[method] = {
            "tokens_per_second": {side: len(x) / statistics.median(spent) for side, spent in seconds.items()},
            "ratio": statistics.median(
                other / own for own, other in zip(seconds["ours"], seconds["theirs"], strict=True)
            ),
            "fvu": {side: fvu(x, dense, atoms) for side, dense in sides(code, theirs, len(atoms)).items()},
            "l0": {"ours": l0(code), "theirs": l0(theirs)},
            "fvu_at_their_l0": fvu_at(l0(theirs), x, atoms, gram, method),
        }
    return found


def fvu_at(count: float, x: Tensor, atoms: Tensor, gram: Tensor, method: str) -> float:
    """fvu of ours with `count` atoms a row, between the whole numbers below and above it in proportion."""
    whole = int(count)
    below, above = (fvu(x, pursue(x, atoms, k, method, gram=gram).dense(len(atoms)), atoms) for k in (whole, whole + 1))
    return below + (count - whole) * (above - below)


def sides(code: SparseCode, theirs: Tensor, n_atoms: int) -> dict[str, Tensor]:
    return {"ours": code.dense(n_atoms), "theirs": theirs}


def resident(field: str) -> int:
    """A field of this process's status in bytes, `VmRSS` (resident) or `VmHWM` (most since the last reset)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak(n_atoms: int, k: int, rows: int, device: str) -> float:
    """Most bytes, in GB, that either of ours takes beside rows, atoms and Gram."""
    x, atoms = problem(n_atoms, rows, device)
    gram = gram_of(atoms)
    most = 0
    for method in PAIRS:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            pursue(x, atoms, k, method, gram=gram)
            most = max(most, torch.cuda.max_memory_allocated() - before)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
            before = resident("VmRSS")
            pursue(x, atoms, k, method, gram=gram)
            most = max(most, resident("VmHWM") - before)
    return most / 1e9


def run(options: argparse.Namespace, device: str) -> dict:
    sizes, gram_seconds, peaks = [], {}, []
    for n_atoms in sorted({n for n, _ in options.sizes}):
        x, atoms = problem(n_atoms, options.rows, device)
        gram, gram_seconds[n_atoms] = timed(lambda atoms=atoms: gram_of(atoms), device)
        for k in (k for n, k in options.sizes if n == n_atoms):
            sizes.append({"n_atoms": n_atoms, "k": k} | compare(x, atoms, gram, k, options.rounds))
        del gram
        command = [sys.executable, __file__, "--rows", str(options.rows), "--peak", str(n_atoms)]
        peaks.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return {
        "ratios": {name: min(size[method]["ratio"] for size in sizes) for method, (name, _) in PAIRS.items()},
        "fvu_gain": {
            method: min(size[method]["fvu"]["theirs"] - size[method]["fvu"]["ours"] for size in sizes)
            for method in PAIRS
        },
        "fvu_gain_equal_l0": {
            method: min(size[method]["fvu"]["theirs"] - size[method]["fvu_at_their_l0"] for size in sizes)
            for method in PAIRS
        },
        "peak_over_gram_gb": max(peaks),
        "gram_seconds": gram_seconds,
        "sizes": sizes,
        "rows": options.rows,
        "rounds": options.rounds,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
    }


def table(found: dict) -> str:
    """One line for each method and size."""
    lines = [f"{'atoms':>6} {'k':>3} {'method':8} {'tokens/s':>9} {'fvu':>6} {'l0':>6}"]
    for size in found["sizes"]:
        for method, (_, released) in PAIRS.items():
            for side, name in (("theirs", released.__name__.split("_")[1] + " (released)"), ("ours", method)):
                part = size[method]
                lines.append(
                    f"{size['n_atoms']:>6} {size['k']:>3} {name:19} {part['tokens_per_second'][side]:>9.1f} "
                    f"{part['fvu'][side]:>6.3f} {part['l0'][side]:>6.1f}"
                )
    for name in ("ratios", "fvu_gain", "fvu_gain_equal_l0", "gram_seconds"):
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in found[name].items()))
    lines.append(f"peak_over_gram_gb: {found['peak_over_gram_gb']:.3f} ({found['device']})")
    return "\n".join(lines)


def size(text: str) -> tuple[int, int]:
    n_atoms, k = text.split(":")
    return int(n_atoms), int(k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=256, help="rows pursued together")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is timed")
    parser.add_argument("--sizes", type=size, nargs="+", default=SIZES, metavar="ATOMS:K")
    parser.add_argument("--peak", type=int, metavar="ATOMS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.inference_mode():
        if options.peak:
            print(peak(options.peak, max(k for _, k in SIZES), options.rows, device))
            return
        found = run(options, device)
    print(json.dumps(found) if options.json else table(found))


if __name__ == "__main__":
    main()
