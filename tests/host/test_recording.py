"""Record Activations in a real ComfyUI: what lies on disk is what the blocks gave, and training starts from it."""

import math
import sys
import time

import pytest
import torch

from fluxtionary import cli
from fluxtionary.dictionaries import load_dictionary
from fluxtionary.residual.shards import Shards
from fluxtionary.training.shards import shard_stream

from .comfy_server import NodeError
from .flow import CAPTION, Flow
from .living import area
from .watching import IMAGE, TEXT, calls, latents, plain

NODE = "FluxtionaryRecordActivations"
SITES = "double.1.img, double.1.txt"


def record(flow, model, folder, sites=SITES, **options):
    return flow.add(NODE, model=model, sites=sites, folder=folder, **options)


def root(comfy):
    return comfy.base / "output" / "fluxtionary"


def runs(comfy, folder):
    path = root(comfy) / folder
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


def recorded(comfy, folder, sample=None, wrap=None, **options):
    """Record a run that a Watch sees too, at the input of the block after `double.1`: its shards, the Watch's calls."""
    flow = Flow()
    model = flow.watch(wrap(flow) if wrap else flow.model, folder)
    model = record(flow, model, folder, **({"precision": "float32"} | options))
    made = {name: value(flow) if callable(value) else value for name, value in (sample or {}).items()}
    flow.save(flow.sample(model, **made))
    comfy.run(flow)
    (name,) = runs(comfy, folder)
    shards = Shards(root(comfy) / folder / name)
    shards.verify()
    assert shards.complete
    return shards, calls(comfy, folder)


def stream_of(call, site):
    return call["img"][:, IMAGE if site.stream == "img" else TEXT]


@pytest.mark.parametrize("rows", ["cond", "uncond", "both"])
def test_what_is_recorded_is_what_the_next_block_got(comfy, rows):
    """Two pictures at cfg 3, both streams of a block: rows, tokens, pictures, sigmas and every bit."""
    sample = {"cfg": 3.0, "latent": lambda flow: flow.empty(2), "steps": 3}
    shards, seen = recorded(comfy, f"rows-of-{rows}", sample, rows=rows)
    assert len(seen) == shards.batches == 3
    wanted = {"cond": {0}, "uncond": {1}, "both": {0, 1}}[rows]
    for i, call in enumerate(seen):
        numbers = call["cond_or_uncond"].tolist()
        asked = torch.tensor([number in wanted for number in numbers for _ in range(2)])
        for site, tokens in shards.batch(i).items():
            stream = stream_of(call, site)[asked]
            assert torch.equal(tokens.x, stream.flatten(0, 1))
            assert torch.equal(tokens.position, torch.arange(stream.shape[1]).repeat(len(stream)))
            pictures = torch.tensor([0, 1] * len(numbers))[asked]
            assert torch.equal(tokens.picture, pictures.repeat_interleave(stream.shape[1]))
            assert torch.equal(tokens.sigma, call["sigma"].expand(len(tokens.sigma)))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_rounding(comfy, precision):
    shards, seen = recorded(comfy, f"as-{precision}", precision=precision)
    assert shards.dtype == getattr(torch, precision) and shards.batches == len(seen) == 4
    for i, call in enumerate(seen):
        for site, tokens in shards.batch(i).items():
            assert torch.equal(tokens.x, stream_of(call, site)[0].to(shards.dtype))


def test_a_recording_says_how_it_was_made(comfy):
    sample = {"latent": lambda flow: flow.empty(2, 136, 120), "steps": 2, "seed": 2**64 - 1}
    shards, _ = recorded(comfy, "facts", sample, prompt="a circle", model_name="demo", rows="both", end_percent=0.9)
    assert shards.model == {"family": "flux1", "name": "demo"}
    assert shards.prompts == ("a circle",) * 2 and shards.seeds == (2**64 - 1,) * 2
    assert shards.grid == (8, 9)
    header = dict(shards.header)
    assert len(header.pop("prompts_sha256")) == 64 and header.pop("padding").startswith("kept: ")
    assert header == {
        "host": "comfyui",
        "sigmas": [1.0, 0.5, 0.0],
        "steps": 2,
        "height": 120,
        "width": 136,
        "start_percent": 0.0,
        "end_percent": 0.9,
        "rows": "both",
        "share": 1.0,
    }


def test_a_window_records_its_steps_only(comfy):
    shards, seen = recorded(comfy, "a window", {"steps": 8}, start_percent=0.3, end_percent=0.7)
    held = [call for call in seen if 0.3 < float(call["sigma"]) <= 0.7]
    assert shards.batches == len(held) == 3
    for i, call in enumerate(held):
        assert torch.equal(next(iter(shards.batch(i).values())).x, call["img"][0, IMAGE])


def test_a_share_of_the_tokens_is_drawn_by_the_seed(comfy):
    def one(folder, seed):
        sample = {"latent": lambda flow: flow.empty(2), "steps": 3, "seed": seed}
        shards, seen = recorded(comfy, folder, sample, sites="double.1.img", share=0.25)
        found = [next(iter(shards.batch(i).values())) for i in range(3)]
        for tokens, call in zip(found, seen, strict=True):
            assert torch.equal(tokens.x, call["img"][:, IMAGE][tokens.picture, tokens.position])
        return [(tokens.picture * 64 + tokens.position).tolist() for tokens in found]

    first, again, other = one("share-1", 5), one("share-2", 5), one("share-3", 6)
    assert first == again != other
    assert 0.15 < sum(map(len, first)) / (3 * 128) < 0.35


def test_an_area_s_tokens_lie_where_they_are_in_the_picture(comfy):
    shards, seen = recorded(comfy, "areas", {"positive": area, "steps": 2}, sites="double.1.img")
    whole = torch.arange(64).reshape(8, 8)
    lengths = set()
    for i, call in enumerate(seen):
        (tokens,) = shards.batch(i).values()
        assert torch.equal(tokens.x, call["img"][0, 16:])
        # the area begins at a quarter of the width
        assert torch.equal(tokens.position, (whole if len(tokens.x) == 64 else whole[:, 2:]).flatten())
        lengths.add(len(tokens.x))
    assert lengths == {64, 48} and shards.grid == (8, 8)


def test_sites_of_single_blocks_and_before_and_after(comfy):
    """In the picture nothing changes; an update is what a block added, and mlp sites have their own width."""
    names = "double.0.img\ndouble.1.img,double.1.img.update;single.1.txt\nsingle.1.img.mlp"
    shards, _ = recorded(comfy, "many sites", {"steps": 1}, sites=names)
    batch = {str(site): tokens.x for site, tokens in shards.batch(0).items()}
    assert {name: tuple(x.shape) for name, x in batch.items()} == {
        "double.0.img": (64, 192),
        "double.1.img": (64, 192),
        "double.1.img.update": (64, 192),
        "single.1.txt": (16, 192),
        "single.1.img.mlp": (64, 768),
    }
    assert torch.equal(batch["double.1.img"] - batch["double.0.img"], batch["double.1.img.update"])
    assert torch.equal(latents(comfy, lambda flow: record(flow, flow.model, "unseen")), latents(comfy, plain))


def test_an_fp8_model_is_recorded_too(comfy):
    shards, seen = recorded(comfy, "in fp8", wrap=lambda flow: flow.add("NeighbourLoadFp8", model=flow.model))
    for i, call in enumerate(seen):
        for site, tokens in shards.batch(i).items():
            assert torch.equal(tokens.x, stream_of(call, site)[0])


def test_steps_that_a_cache_skips_are_not_recorded(comfy):
    def cached(flow):
        options = {"reuse_threshold": 0.5, "start_percent": 0.1, "end_percent": 1.0, "verbose": False}
        return flow.add("EasyCache", model=flow.model, **options)

    shards, seen = recorded(comfy, "cached", {"steps": 8}, wrap=cached)
    assert shards.batches == len(seen) < 8
    assert "model calls were skipped by a cache, wholly or in part, and not recorded" in comfy.log()


def test_every_run_has_a_folder_of_its_own(comfy):
    flow = Flow()
    model = record(flow, flow.model, "several/times")
    shown = flow.add("PreviewAny", source=[model[0], 1])
    for seed in (1, 2):
        flow.save(flow.sample(model, seed=seed))
    outputs = comfy.run(flow)
    assert outputs[shown[0]]["text"] == [str(root(comfy) / "several" / "times")]
    assert runs(comfy, "several/times") == ["run-00001", "run-00002"]
    found = [Shards(root(comfy) / "several/times" / name) for name in runs(comfy, "several/times")]
    assert sorted(shards.seeds for shards in found) == [(1,), (2,)]
    flow.save(flow.sample(model, seed=3))
    comfy.run(flow)
    assert runs(comfy, "several/times") == ["run-00001", "run-00002", "run-00003"]


def test_two_nodes_on_one_model_record_apart(comfy):
    flow = Flow()
    model = record(flow, record(flow, flow.model, "twice", "double.0.img"), "twice", "double.1.txt")
    flow.save(flow.sample(model))
    comfy.run(flow)
    found = [Shards(root(comfy) / "twice" / name) for name in runs(comfy, "twice")]
    assert sorted(str(shards.sites[0]) for shards in found) == ["double.0.img", "double.1.txt"]


def test_an_interrupted_run_leaves_nothing_behind(comfy):
    flow = Flow()
    flow.save(flow.sample(record(flow, flow.model, "interrupted"), steps=2000, latent=flow.empty(16)))
    prompt = comfy.queue(flow.nodes)
    while not list((root(comfy) / "interrupted").glob("run-00001/*.safetensors")):
        time.sleep(0.02)
    comfy.post("/interrupt", {})
    with pytest.raises(NodeError, match="interrupted"):
        comfy.wait(prompt)
    assert runs(comfy, "interrupted") == []
    assert works(comfy, "interrupted")


def test_a_run_that_fails_leaves_nothing_behind(comfy):
    """Activations beyond float16, as Flux 1 has them too."""
    flow = Flow()
    controlled = flow.add("NeighbourControl", conditioning=flow.text(CAPTION), size=1e6)
    model = record(flow, flow.model, "overflown", "single.1.img", precision="float16")
    flow.save(flow.sample(model, positive=controlled))
    words = r"Record Activations: .*finite activations at single\.1\.img in float16.*bfloat16"
    with pytest.raises(NodeError, match=words):
        comfy.run(flow)
    assert runs(comfy, "overflown") == []
    assert works(comfy, "overflown")


def test_a_window_without_a_step_is_a_note(comfy):
    flow = Flow()
    model = record(flow, flow.model, "nothing", start_percent=0.3, end_percent=0.4)
    flow.save(flow.sample(model, steps=2))
    comfy.run(flow)
    assert runs(comfy, "nothing") == []
    assert "Record Activations: nothing was recorded" in comfy.log()


def works(comfy, folder):
    flow = Flow()
    flow.save(flow.sample(record(flow, flow.model, folder), steps=1))
    comfy.run(flow)
    return Shards(root(comfy) / folder / runs(comfy, folder)[-1]).complete


NAMED = "letters, digits, spaces and"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sites": ""}, "sites: expected at least one site, such as double.18.img, found ''"),
        ({"sites": " ,\n"}, "sites: expected at least one site"),
        ({"sites": "double.1.img, double.1.image"}, "sites: 'double.1.image' is no site: expected stage.block.stream"),
        ({"sites": "double.7.img"}, r"no double\.7\.img.*2 double and 4 single"),
        ({"share": math.nan}, "share: expected a number above 0 and at most 1, found nan"),
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"start_percent": 0.6, "end_percent": 0.4}, "start 0.6 and end 0.4"),
        ({"precision": "int8"}, "precision.*int8"),
        ({"folder": ""}, f"folder: expected {NAMED}.*found ''"),
        ({"folder": "/tmp/x"}, f"folder: expected {NAMED}.*found '/tmp/x'"),
        ({"folder": ".."}, f"folder: expected {NAMED}.*found '..'"),
        ({"folder": "a/../../b"}, f"folder: expected {NAMED}"),
        ({"folder": "a\x00b"}, f"folder: expected {NAMED}"),
        ({"folder": "C:\\x"}, f"folder: expected {NAMED}"),
        ({"folder": "a//b"}, f"folder: expected {NAMED}"),
        ({"folder": "x" * 101}, "folder: expected .* 100 characters"),
    ],
)
def test_bad_inputs_are_errors_on_the_node(comfy, options, words):
    flow = Flow()
    given = {"folder": "never", "sites": SITES} | options
    flow.save(flow.sample(record(flow, flow.model, **given)))
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(flow)
    assert flow.nodes[error.value.node]["class_type"] == NODE
    assert runs(comfy, "never") == []


def test_the_server_lives_on(comfy):
    assert works(comfy, "after bad inputs")


def test_links_that_lead_outside_are_refused(comfy, tmp_path):
    root(comfy).mkdir(parents=True, exist_ok=True)
    (root(comfy) / "out").symlink_to(tmp_path, target_is_directory=True)
    flow = Flow()
    flow.save(flow.sample(record(flow, flow.model, "out/there")))
    with pytest.raises(NodeError, match="folder: expected a place inside .*a link that leads to"):
        comfy.run(flow)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(comfy):
    root(comfy).mkdir(parents=True, exist_ok=True)
    (root(comfy) / "a file").write_text("mine")
    flow = Flow()
    flow.save(flow.sample(record(flow, flow.model, "a file/inside")))
    with pytest.raises(NodeError, match="Record Activations: cannot write to .*a file/inside: .*choose another folder"):
        comfy.run(flow)
    assert works(comfy, "after no place")


def test_a_capture_s_own_folder_is_no_folder_of_runs(comfy):
    assert works(comfy, "first")
    flow = Flow()
    flow.save(flow.sample(record(flow, flow.model, "first/run-00001")))
    with pytest.raises(NodeError, match=r"expected a folder of runs, found a capture.*give another folder"):
        comfy.run(flow)


def test_training_starts_from_a_folder_of_runs(comfy, tmp_path, monkeypatch, capsys):
    """As the help page says it: one command, all runs; prompts held out; the dictionary loads and fits the model."""
    for seed, color in enumerate(("red", "blue", "green", "pink", "black")):
        flow = Flow()
        caption = f"a large {color} circle"
        model = record(flow, flow.model, "to train on", prompt=caption)
        flow.save(flow.sample(model, caption=caption, seed=seed, latent=flow.empty(2)))
        comfy.run(flow)
    folder = root(comfy) / "to train on"
    stream = shard_stream([folder])
    assert len(stream) == 5 * 4 and len(set(stream.prompts)) == 5
    assert stream.header["host"] == "comfyui" and stream.header["steps"] == 4
    out = tmp_path / "sae.safetensors"
    command = ["train-sae", "--shards", folder, "--site", "double.1.img", "--out", out]
    sizes = ["--sae.features", 64, "--sae.k", 4, "--sae.tokens", 2048, "--sae.batch", 256, "--sae.buffer", 0.01]
    monkeypatch.setattr(sys, "argv", ["fluxtionary", *map(str, [*command, *sizes, "--held-out", 0.4])])
    cli.main()
    assert "double.1.img" in capsys.readouterr().out
    dictionary = load_dictionary(out)
    assert (dictionary.site, dictionary.d_model, dictionary.n_features) == ("double.1.img", 192, 64)
    assert dictionary.provenance.capture["host"] == "comfyui" and dictionary.provenance.metrics["tokens"] > 0
    (comfy.base / "models" / "flux_dictionaries" / "recorded.safetensors").write_bytes(out.read_bytes())
    assert not torch.equal(
        latents(comfy, lambda flow: flow.steer(flow.model, dictionary="recorded.safetensors")), latents(comfy, plain)
    )
