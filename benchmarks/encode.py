"""Encoding with a large SAE, and loading its file: `python benchmarks/encode.py [--json]`.

Ours against a plain float32 `relu(x @ W + b).topk`, alternating in one process. The SAE's encoder and decoder are
tokens, of length 1 after standardising. Loading is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from mixtures import Mixtures
from timing import timed

from fluxtionary.dictionaries import Activation, Normalization, SparseAutoencoder, load_dictionary, save_dictionary

SITE = "double.18.img"
LOAD = """
import json, os, sys, time
import torch
from fluxtionary.dictionaries import load_dictionary

def resident():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}

warm = torch.randn(8, 8) @ torch.randn(8, 8)
before = resident()["VmRSS"]
started = time.perf_counter()
dictionary = load_dictionary(sys.argv[1])
loaded = time.perf_counter() - started
peak = resident()["VmHWM"] - before
dictionary.encode(torch.ones(1, dictionary.d_model))
print(json.dumps({"peak": peak, "load_s": loaded, "first_code_s": time.perf_counter() - started}))
"""


def token_sae(d_model: int, features: int, k: int, source: Mixtures) -> SparseAutoencoder:
    """An SAE whose encoder and decoder rows are standardised tokens of length 1."""
    normalization = Normalization.fit(source.draw(8192))
    rows = torch.cat([source.draw(min(8192, features - done)) for done in range(0, features, 8192)])
    rows = torch.nn.functional.normalize(normalization.apply(rows), dim=1)
    encoder, bias = normalization.fold_encoder(rows, torch.zeros(features))
    decoder, decoder_bias = normalization.fold_decoder(rows, torch.zeros(d_model))
    return SparseAutoencoder(SITE, encoder, bias, decoder, decoder_bias, Activation("topk", k), normalization)


def plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, k: int):
    """What the libraries do: `weight` is `[d_model, n_features]`."""
    return torch.relu(x @ weight + bias).topk(k, dim=-1)


def fvu(x: torch.Tensor, found: torch.Tensor) -> float:
    std, mean = x.double().std(0), x.double().mean(0)
    return float((((x - found).double() / std) ** 2).sum() / (((x.double() - mean) / std) ** 2).sum())


def compare(sae: SparseAutoencoder, x: torch.Tensor, repeats: int) -> dict:
    """Seconds of both, recall of the true top k, and the ratio of the errors that remain."""
    device = x.device.type
    weight, bias, k = sae.encoder.T.contiguous(), sae.encoder_bias, sae.k or 1
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "exact": []}
    for _ in range(repeats + 1):  # the first round warms up
        (values, indices), spent = timed(lambda: plain(x, weight, bias, k), device)
        seconds["plain"].append(spent)
        for name, exact in (("ours", False), ("exact", True)):
            sae.exact = exact
            code, spent = timed(lambda: sae.encode(x), device)
            seconds[name].append(spent)
            if name == "ours":
                ours = code
    true = torch.zeros(len(x), sae.n_features, dtype=torch.bool, device=x.device).scatter_(1, indices, values > 0)
    hit = true.gather(1, ours.indices) & (ours.values > 0)
    reference = type(ours)(values, indices)
    best = {name: statistics.median(spent[1:]) for name, spent in seconds.items()}
    return {
        "tokens_per_second": {name: len(x) / spent for name, spent in best.items()},
        "ratios": {
            "encode_vs_plain": best["plain"] / best["ours"],
            "exact_vs_plain": best["plain"] / best["exact"],
        },
        "recall": float(hit.sum() / true.sum()),
        "fvu_ratio": fvu(x, sae.decode(ours)) / fvu(x, sae.decode(reference)),
        "fvu": fvu(x, sae.decode(ours)),
    }


def measure_load(sae: SparseAutoencoder) -> dict:
    """Peak memory over the file's size, and seconds until one row has its code, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.safetensors"
        save_dictionary(sae, path)
        assert load_dictionary(path).n_features == sae.n_features
        run = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True)
        found = json.loads(run.stdout)
        size = path.stat().st_size
    return {
        "peak_over_size": found["peak"] / size,
        "first_code_s": found["first_code_s"],
        "load_s": found["load_s"],
        "size_gb": size / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--d-model", type=int, default=3072)
    parser.add_argument("--features", type=int, default=65_536)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = Mixtures(options.d_model)
    sae = token_sae(options.d_model, options.features, options.k, source)
    load = measure_load(sae)
    x = source.draw(options.tokens).to(device)
    for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
        setattr(sae, name, getattr(sae, name).to(device))
    with torch.inference_mode():
        found = compare(sae, x, options.repeats) | {"load": load, "device": device}
    if options.json:
        print(json.dumps(found))
        return
    for name, rate in found["tokens_per_second"].items():
        print(f"{name:6} {rate:9.0f} tokens/s")
    print(f"ours / plain {found['ratios']['encode_vs_plain']:.2f}, recall {found['recall']:.4f}, ", end="")
    print(f"fvu {found['fvu']:.3f}, {found['fvu_ratio']:.4f} of plain")
    print(f"loading {load['size_gb']:.1f} GB: peak {load['peak_over_size']:.2f} of its size, ", end="")
    print(f"first code after {load['first_code_s']:.2f} s")


if __name__ == "__main__":
    main()
