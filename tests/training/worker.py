"""One of several processes that train a dictionary of a KIND together, or the only one: into the folder OUT."""

import os
import runpy
from pathlib import Path

import torch

from fluxtionary.training.sae import SAETraining
from fluxtionary.training.train import Records, Wanted, train_saes
from fluxtionary.training.workers import Workers

given = globals()
streams = runpy.run_path(str(Path(__file__).with_name("streams.py")))
torch.set_num_threads(1)
os.environ.update(given["ENVIRONMENT"])
out, workers = Path(given["OUT"]), Workers.connect("cpu")
config = SAETraining(
    kind=given["KIND"],
    features=96,
    k=4,
    tokens=51_200,
    batch=256,
    learning_rate=3e-3,
    aux_k=16,
    dead_after=3_000,
    buffer=4000 * 116 / 2**30,
    compute="float32",
)
stream = streams["TokenStream"](streams["sparse_tokens"](12_000), 500)
records = Records(log=out / "log.jsonl", checkpoint=out / "checkpoint", seconds=0.5)
found = train_saes(stream, {"sae": Wanted(streams["SITE"], config)}, records, workers)["sae"]
if workers.first:
    torch.save({"decoder": found.decoder, "captured": len(stream.asked)}, out / "found.pt")
workers.wait()
