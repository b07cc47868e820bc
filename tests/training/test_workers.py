"""Two processes do what one does: the same loss curve within rounding, and the same dictionary."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fluxtionary.training.workers import ALONE, Workers

CODE = """
import sys, json
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from streams import SITE, TokenStream, sparse_tokens
from fluxtionary.training.sae import SAETraining
from fluxtionary.training.train import Records, Wanted, train_saes
from fluxtionary.training.workers import Workers

out = Path(sys.argv[1])
workers = Workers.connect("cpu")
config = SAETraining(kind=sys.argv[3], features=96, k=4, tokens=51_200, batch=256, learning_rate=3e-3, aux_k=16,
                     dead_after=3_000, buffer=4000 * 116 / 2**30, compute="float32")
stream = TokenStream(sparse_tokens(12_000), 500)
records = Records(log=out / "log.jsonl", checkpoint=out / "checkpoint", seconds=0.5)
found = train_saes(stream, {"sae": Wanted(SITE, config)}, records, workers)["sae"]
if workers.first:
    torch.save({"decoder": found.decoder, "captured": len(stream.asked)}, out / "found.pt")
workers.wait()
"""


def launch(out, kind, count):
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    arguments = [sys.executable, "-c", CODE, str(out), str(Path(__file__).parent), kind]
    started = [
        subprocess.Popen(arguments, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(count)
    ]
    for process in started:
        errors = process.communicate(timeout=240)[1]
        assert process.returncode == 0, errors.decode()[-2000:]
    lines = [json.loads(line)["sae"] for line in (out / "log.jsonl").read_text().splitlines()]
    return lines, torch.load(out / "found.pt")


@pytest.mark.parametrize(
    "kind", ["topk", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("batchtopk", "matryoshka", "jumprelu"))]
)
def test_two_processes_have_the_loss_curve_of_one(tmp_path, kind):
    one, alone = launch(tmp_path / "one", kind, 1)
    two, together = launch(tmp_path / "two", kind, 2)
    assert len(one) == len(two) > 5
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-3), (a, b)
        assert a["l0"] == pytest.approx(b["l0"], abs=0.05)
    assert one[-1]["loss"] < 0.7 * one[0]["loss"]
    assert torch.nn.functional.cosine_similarity(alone["decoder"], together["decoder"]).min() > 0.99
    assert together["captured"] < 0.7 * alone["captured"]  # each captures its own part


def test_one_process_talks_to_nobody():
    assert ALONE.first and ALONE.count == 1
    x = torch.randn(3)
    assert ALONE.sum(x) is x and ALONE.all(x) is x
    assert Workers.connect("cpu").count == 1
