"""Pipelines from every kind of source, and what is refused."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fluxtionary.demo import files
from fluxtionary.training import models
from fluxtionary.training.models import Model, ModelError, load, load_pipeline

from .test_single_file import original_layout, small_transformer

PLAIN = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def folder(random_flux, tmp_path_factory):
    """The random Flux as `FluxPipeline.save_pretrained` writes it."""
    path = tmp_path_factory.mktemp("flux")
    random_flux.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def distilled(folder, tmp_path_factory):
    """A folder for a Flux with guidance embedding (as FLUX.1-dev), without its weights, and the transformer itself."""
    path = tmp_path_factory.mktemp("dev") / "flux"
    shutil.copytree(folder, path)
    shutil.rmtree(path / "transformer")
    transformer = small_transformer(guidance_embeds=True)
    transformer.save_config(path / "transformer")
    return path, transformer


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of the folder with another index or transformer configuration: `changed(index={...}, config={...})`."""

    def change(index=None, config=None):
        path = tmp_path / "changed"
        shutil.copytree(folder, path)
        for name, changes in (("model_index.json", index), ("transformer/config.json", config)):
            old = json.loads((path / name).read_text())
            (path / name).write_text(json.dumps(old | (changes or {})))
        return path

    return change


def single_file(state, path, prefix=""):
    save_file({f"{prefix}{key}": value for key, value in state.items()}, path)
    return str(path)


def test_a_folder_draws_what_the_pipeline_drew(random_flux, folder, draw):
    pipeline = load(Model(str(folder), **PLAIN))
    assert torch.equal(draw(pipeline), draw(random_flux))
    assert torch.equal(draw(load_pipeline(str(folder))), draw(random_flux))


def test_types_are_float32_for_the_demo_and_bfloat16_for_others(folder, draw):
    assert load(Model("demo-small", device="cpu")).transformer.dtype == torch.float32
    pipeline = load(Model(str(folder), device="cpu"))
    assert {part.dtype for part in (pipeline.transformer, pipeline.text_encoder_2, pipeline.vae)} == {torch.bfloat16}
    assert draw(pipeline).isfinite().all()
    assert load(Model("demo", dtype="bfloat16", device="cpu")).transformer.dtype == torch.bfloat16


@pytest.mark.parametrize("layout", ["original", "diffusers", "comfyui"])
def test_one_file_in_a_folder_draws_the_same(random_flux, folder, draw, tmp_path, layout):
    state = random_flux.transformer.state_dict()
    weights = state if layout == "diffusers" else original_layout(state)
    prefix = "model.diffusion_model." if layout == "comfyui" else ""
    path = single_file(weights, tmp_path / "flux.safetensors", prefix)
    latents = draw(load(Model(path, config=folder, **PLAIN)))
    assert torch.allclose(latents, draw(random_flux), atol=1e-5)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_one_file_with_guidance_needs_no_other_weights(distilled, draw, tmp_path, layout):
    folder, transformer = distilled
    state = transformer.state_dict()
    weights = state if layout == "diffusers" else original_layout(state)
    pipeline = load(Model(single_file(weights, tmp_path / "dev.safetensors"), config=folder, **PLAIN))
    found = pipeline.transformer.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)
    assert not torch.equal(draw(pipeline, guidance_scale=1.0), draw(pipeline, guidance_scale=5.0))
    pipeline.transformer = transformer
    expected = draw(pipeline, guidance_scale=3.5)
    assert torch.equal(draw(load_saved(pipeline, tmp_path / "saved"), guidance_scale=3.5), expected)


def load_saved(pipeline, folder):
    pipeline.save_pretrained(folder)
    return load(Model(str(folder), **PLAIN))


def test_plain_fp8_files_are_cast(random_flux, folder, draw, tmp_path):
    state = original_layout(random_flux.transformer.state_dict())
    weights = {key: value.to(torch.float8_e4m3fn) for key, value in state.items()}
    pipeline = load(Model(single_file(weights, tmp_path / "fp8.safetensors"), config=folder, **PLAIN))
    assert pipeline.transformer.dtype == torch.float32
    assert torch.allclose(draw(pipeline), draw(random_flux), atol=0.1)


def test_fp8_storage_computes_in_the_given_type(random_flux, folder, draw):
    pipeline = load(Model(str(folder), quantize="fp8", **PLAIN))
    assert pipeline.transformer.transformer_blocks[0].attn.to_q.weight.dtype == torch.float8_e4m3fn
    latents, plain = draw(pipeline), draw(random_flux)
    assert latents.dtype == torch.float32 and torch.allclose(latents, plain, atol=0.1)
    assert not torch.equal(latents, plain)


def test_int8_of_torchao_and_a_folder_saved_with_it(random_flux, folder, draw, tmp_path):
    pytest.importorskip("torchao")
    pipeline = load(Model(str(folder), quantize="int8", device="cpu"))
    assert type(pipeline.transformer.transformer_blocks[0].attn.to_q.weight).__name__ == "Int8Tensor"
    latents = draw(pipeline)
    assert torch.allclose(latents.float(), draw(random_flux), atol=0.2)
    pipeline.save_pretrained(tmp_path)
    again = load(Model(str(tmp_path), device="cpu"))
    assert type(again.transformer.transformer_blocks[0].attn.to_q.weight).__name__ == "Int8Tensor"
    assert torch.equal(draw(again), latents)


def test_gguf_in_the_original_layout(random_flux, folder, draw, tmp_path):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "flux.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    for key, value in original_layout(random_flux.transformer.state_dict()).items():
        kind = gguf.GGMLQuantizationType.Q8_0 if value.dim() == 2 else gguf.GGMLQuantizationType.F32
        array = gguf.quants.quantize(value.numpy(), kind)
        writer.add_tensor(key, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    pipeline = load(Model(str(path), config=folder, **PLAIN))
    assert torch.allclose(draw(pipeline), draw(random_flux), atol=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float64"}, "dtype must be one of float32, bfloat16, float16, found 'float64'"),
        ({"offload": "disk"}, "offload must be one of none, model, sequential, found 'disk'"),
        ({"quantize": "int3"}, "quantize must be one of none, fp8, int8, nf4, found 'int3'"),
        ({"quantize": "int8", "offload": "sequential"}, "sequential takes layers apart.*use offload model"),
        ({"model": "flux.safetensors"}, "flux.safetensors is a transformer alone: pass --config"),
        ({"config": Path("x")}, "--config goes with one transformer file .*found model 'demo'"),
        ({"model": "x.gguf", "config": Path("x"), "quantize": "nf4"}, "quantized already: leave --quantize"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options, words):
    with pytest.raises(ModelError, match=words):
        Model(**options)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "device must be one of cuda, mps, xpu, cpu, such as cuda:1, found 'gpu'"),
        ("meta", "device must be one of.*found 'meta'"),
        ("cuda:99", "device cuda:99 is not there"),
    ],
)
def test_devices_that_are_not_there_are_refused(device, words):
    with pytest.raises(ModelError, match=words):
        load(Model(device=device))


def test_offload_needs_an_accelerator():
    for offload in ("model", "sequential"):
        with pytest.raises(ModelError, match=f"offload {offload} .*found device cpu"):
            load(Model(device="cpu", offload=offload))


def test_offload_and_device_reach_the_pipeline(monkeypatch):
    class Pipeline:
        def __getattr__(self, name):
            return lambda *args, **options: asked.append((name, *args, *options.items()))

    asked: list = []
    device = torch.device("cuda:0")
    for offload in ("none", "model", "sequential"):
        models._place(Pipeline(), Model(offload=offload), device)
    assert asked == [
        ("to", device),
        ("enable_model_cpu_offload", ("device", device)),
        ("enable_sequential_cpu_offload", ("device", device)),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [models.device_of(Model(device=name)).type for name in (None, "cuda:1", "cpu")] == ["cuda", "cuda", "cpu"]
    with pytest.raises(ModelError, match="cuda:2 is not there: this machine has 2"):
        models.device_of(Model(device="cuda:2"))


def test_missing_libraries_are_named_with_the_command(folder, changed, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    absent = {"torchao", "bitsandbytes", "gguf"}
    monkeypatch.setattr(models, "find_spec", lambda name: None if name in absent else find(name))
    gguf = tmp_path / "x.gguf"
    gguf.write_bytes(b"GGUF")
    saved = changed(config={"quantization_config": {"quant_method": "torchao"}})
    for model, library in [
        (Model(str(folder), quantize="int8", device="cpu"), "torchao"),
        (Model(str(folder), quantize="nf4", device="cpu"), "bitsandbytes"),
        (Model(str(gguf), config=folder, device="cpu"), "gguf"),
        (Model(str(saved), device="cpu"), "torchao"),
    ]:
        with pytest.raises(ModelError, match=f"need a library: pip install {library}"):
            load(model)
    absent.clear()
    monkeypatch.setattr(models, "find_spec", lambda name: object())
    with pytest.raises(ModelError, match="bitsandbytes weights need an accelerator, found device cpu"):
        load(Model(str(folder), quantize="nf4", device="cpu"))
    with pytest.raises(ModelError, match="quantized already .torchao.: leave --quantize at none, found fp8"):
        load(Model(str(saved), quantize="fp8", device="cpu"))


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"_class_name": "ChromaPipeline", "transformer": ["diffusers", "ChromaTransformer2DModel"]}, "ChromaPipeline"),
        (
            {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]},
            "found StableDiffusion3Pipeline with SD3Transformer2DModel",
        ),
        ({"_class_name": "StableDiffusionXLPipeline", "transformer": None}, "XLPipeline with no transformer"),
        (
            {"text_encoder_2": [None, None]},
            "expected a whole Flux pipeline, found model_index.json without text_encoder_2",
        ),
    ],
)
def test_other_pipelines_are_named(changed, index, words):
    with pytest.raises(ModelError, match=words):
        load(Model(str(changed(index)), **PLAIN))


def test_models_that_start_from_a_picture_are_refused(changed):
    path = changed(config={"in_channels": 384, "out_channels": 64})
    with pytest.raises(ModelError, match="draws from text alone, found one with 384 input and 64 output channels"):
        load(Model(str(path), **PLAIN))


def test_folders_and_files_that_are_none_are_named(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    checkpoint = tmp_path / "flux.ckpt"
    checkpoint.write_bytes(b"x")
    for model, words in [
        (tmp_path / "nothing", "demo, demo-small, a folder.*found no such file or folder"),
        (empty, "expected a folder with model_index.json.*found one with nothing"),
        (folder / "transformer", "found one with config.json, diffusion_pytorch_model.safetensors"),
        (checkpoint, "found a .ckpt file"),
        ("some/flux", "cannot load a Flux pipeline from 'some/flux': expected demo.*and on the hub"),
    ]:
        with pytest.raises(ModelError, match=words):
            load(Model(str(model), **PLAIN))
    weights = single_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    for model, config, words in [
        (str(tmp_path / "no.safetensors"), folder, "no.safetensors: expected a transformer in one file, found none"),
        (weights, tmp_path / "nowhere", "nowhere: expected a folder of a Flux pipeline, found none"),
        (weights, checkpoint, "flux.ckpt: expected a folder of a Flux pipeline, found a file"),
        (weights, folder, "x.safetensors: expected a Flux 1 transformer, found one that holds x"),
    ]:
        with pytest.raises(ModelError, match=words):
            load(Model(model, config=config, **PLAIN))


def test_a_file_for_another_folder_is_refused(random_flux, distilled, tmp_path):
    path = single_file(random_flux.transformer.state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="without guidance, as FLUX.1-schnell is.*Point --config at"):
        load(Model(path, config=distilled[0], **PLAIN))


def test_damaged_folders_are_one_line(changed):
    path = changed()
    (path / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot load a Flux pipeline from") as caught:
        load(Model(str(path), **PLAIN))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


def test_a_full_device_is_named(folder, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(models, "_place", full)
    with pytest.raises(ModelError, match="does not fit the device: use --offload model"):
        load(Model(str(folder), **PLAIN))


def test_the_demo_has_its_own_scheduler_and_others_keep_theirs(folder):
    assert type(load(Model(device="cpu")).scheduler).__name__ == "RenewingScheduler"
    for path in (folder, files.PIPELINE):
        assert type(load(Model(str(path), **PLAIN)).scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
