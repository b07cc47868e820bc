"""Two processes do what one does: the same loss curve within rounding, and the same dictionary."""

import json
import runpy
import socket
from pathlib import Path

import pytest
import torch

from fluxtionary.training.workers import ALONE, Workers

from .. import prepared

SCRIPT = Path(__file__).with_name("worker.py")


def alone(out, kind):
    """In this process."""
    out.mkdir()
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(SCRIPT), {"OUT": str(out), "KIND": kind, "ENVIRONMENT": {}})
    finally:
        torch.set_num_threads(threads)
    return results(out)


def together(out, kind, count):
    """In `count` processes."""
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    files = [out / f"said {rank}" for rank in range(count)]
    started = [
        prepared.start(
            SCRIPT,
            said,
            OUT=str(out),
            KIND=kind,
            ENVIRONMENT=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank, said in enumerate(files)
    ]
    for process, said in zip(started, files, strict=True):
        prepared.finish(process, said, 240)
    return results(out)


def results(out):
    """The log's lines, and what was found."""
    lines = [json.loads(line)["sae"] for line in (out / "log.jsonl").read_text().splitlines()]
    return lines, torch.load(out / "found.pt")


@pytest.mark.parametrize(
    "kind", ["topk", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("batchtopk", "matryoshka", "jumprelu"))]
)
def test_two_processes_have_the_loss_curve_of_one(tmp_path, kind):
    one, first = alone(tmp_path / "one", kind)
    two, second = together(tmp_path / "two", kind, 2)
    assert len(one) == len(two) > 5
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-3), (a, b)
        assert a["l0"] == pytest.approx(b["l0"], abs=0.05)
    assert one[-1]["loss"] < 0.7 * one[0]["loss"]
    assert torch.nn.functional.cosine_similarity(first["decoder"], second["decoder"]).min() > 0.99
    assert second["captured"] < 0.7 * first["captured"]  # each captures its own part


def test_one_process_talks_to_nobody():
    assert ALONE.first and ALONE.count == 1
    x = torch.randn(3)
    assert ALONE.sum(x) is x and ALONE.all(x) is x
    assert Workers.connect("cpu").count == 1
