"""Loading a Flux pipeline: the demo's, a folder, the hub's, or one transformer file beside a folder of the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch

from ..demo import files
from .hardware import computes_in_bfloat16
from .single_file import ENDINGS, SingleFileError, check_fits, read_transformer

if TYPE_CHECKING:  # loading diffusers takes seconds, which `--help` and mistyped options need not wait for
    from diffusers import FluxPipeline, FluxTransformer2DModel


class ModelError(ValueError):
    """A model, or a way of drawing with it, that cannot be had as asked."""


DEMO_MODELS = {"demo": "base", "demo-small": "small"}

Dtype = Literal["float32", "bfloat16", "float16"]
Offload = Literal["none", "model", "sequential"]
Quantize = Literal["none", "fp8", "int8", "nf4"]

_EXPECTED = (
    "expected demo, demo-small, a folder written by FluxPipeline.save_pretrained, a hub id (owner/name), "
    "or a transformer in one .safetensors or .gguf file"
)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
# Where diffusers' quantization methods come from: what to look for, and what pip calls it.
_LIBRARIES = {
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "torchao": ("torchao", "torchao"),
    "gguf": ("gguf", "gguf"),
    "quanto": ("optimum", "optimum-quanto"),
    "modelopt": ("modelopt", "'nvidia_modelopt[hf]'"),
    "auto-round": ("auto_round", "auto-round"),
    "sdnq": ("sdnq", "sdnq"),
}


@dataclass(frozen=True)
class Model:
    """Which Flux draws, and how it is held in memory."""

    model: str = "demo"
    """demo, demo-small, a folder that FluxPipeline loads, a hub id, or one transformer file (.safetensors, .gguf)."""
    config: Path | None = None
    """For one transformer file: folder of the pipeline that it goes into, whose own transformer weights are unused."""
    dtype: Dtype | None = None
    """Type of the weights; by default float32 for the demo models, bfloat16 for any other."""
    device: str | None = None
    """Such as cuda, cuda:1, mps or cpu; by default the first of these that is there."""
    offload: Offload = "none"
    """Keep on the device only the part that works (model) or only its layer (sequential: least memory, slowest)."""
    quantize: Quantize = "none"
    """Hold the transformer in 8 or 4 bits: fp8 (nothing to install), int8 (needs torchao), nf4 (needs bitsandbytes)."""

    def __post_init__(self) -> None:
        for name, known in (("dtype", (None, *get_args(Dtype))), ("offload", get_args(Offload))):
            _choose(name, getattr(self, name), known)
        _choose("quantize", self.quantize, get_args(Quantize))
        if self.offload == "sequential" and self.quantize != "none":
            raise ModelError(
                "offload sequential takes layers apart, which quantized weights do not survive: use offload model"
            )
        single = self.model.endswith(ENDINGS)
        if single and self.config is None:
            raise ModelError(
                f"{self.model} is a transformer alone: pass --config with the folder of a Flux pipeline "
                "(text encoders, VAE, scheduler, and the transformer's config.json)"
            )
        if self.config is not None and not single:
            raise ModelError(
                f"--config goes with one transformer file ({' or '.join(ENDINGS)}), found model {self.model!r}"
            )
        if self.model.endswith(".gguf") and self.quantize != "none":
            raise ModelError(f"{self.model} is quantized already: leave --quantize at none, found {self.quantize}")


def _choose(name: str, value: object, known: tuple) -> None:
    if value not in known:
        choices = ", ".join(str(choice) for choice in known if choice is not None)
        raise ModelError(f"{name} must be one of {choices}, found {value!r}")


class _Source(NamedTuple):
    pipeline: str
    """Folder or hub id of text encoders, VAE and scheduler."""
    transformer: str
    """Folder or hub id whose subfolder `transformer` has its configuration."""
    file: Path | None = None
    """The transformer's weights, where they are not in that subfolder."""


def load_pipeline(model: str, dtype: torch.dtype = torch.float32) -> FluxPipeline:
    """`load` in short, on the CPU: `demo`, `demo-small`, a folder that `FluxPipeline` can load, or a hub id."""
    name: Any = str(dtype).removeprefix("torch.")
    return load(Model(model, dtype=name, device="cpu"))


def load(model: Model) -> FluxPipeline:
    """The pipeline, on its device and ready to draw.

    The demo models come with the `RenewingScheduler`, any other with the scheduler it was saved with. Raises
    `ModelError` for what is not there, is no Flux 1, or cannot be held as asked; a hub id is downloaded only after
    its index says that it is one.
    """
    device = device_of(model)
    source = _source(model)
    config = _checked_config(source)
    _check_quantization(model, source, config, device)

    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    demo = model.model in DEMO_MODELS
    dtype = getattr(torch, model.dtype or ("float32" if demo else "bfloat16"))
    with _named(model.model):
        transformer = _transformer(source, config, model, dtype)
        pipeline = diffusers.FluxPipeline.from_pretrained(source.pipeline, transformer=transformer, dtype=dtype)
        if model.quantize == "fp8":
            transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
        _place(pipeline, model, device)
    if demo:
        from ..demo.scheduler import RenewingScheduler

        pipeline.scheduler = RenewingScheduler.from_config(pipeline.scheduler.config)
    if device.type == "cpu":
        pipeline.vae.to(memory_format=torch.channels_last)  # a third faster there
        if demo:
            _decode_faster(pipeline.vae.decoder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def device_of(model: Model) -> torch.device:
    """The device asked for, or the best there is."""
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "xpu": torch.xpu.is_available,
        "cpu": lambda: True,
    }
    name = model.device or next(kind for kind in ("cuda", "mps", "cpu") if there[kind]())
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in there:
        raise ModelError(f"device must be one of {', '.join(there)}, such as cuda:1, found {name!r}")
    if not there[device.type]():
        raise ModelError(f"device {name} is not there: torch {torch.__version__} finds none. Leave --device out")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name} is not there: this machine has {torch.cuda.device_count()}, counted from 0")
    if model.offload != "none" and device.type == "cpu":
        raise ModelError(
            f"offload {model.offload} moves parts between the CPU and an accelerator; found device cpu. "
            "Leave --offload at none"
        )
    return device


def _source(model: Model) -> _Source:
    """Where the parts lie; paths that are named must exist."""
    if model.model in DEMO_MODELS:
        small = DEMO_MODELS[model.model] == "small"
        return _Source(str(files.PIPELINE), str(files.SMALL_TRANSFORMER.parent if small else files.PIPELINE))
    path = Path(model.model).expanduser()
    if model.config is not None:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "none"
            raise ModelError(f"{path}: expected a transformer in one file, found {found}")
        folder = str(_folder(model.config.expanduser()))
        return _Source(folder, folder, path)
    if path.is_dir():
        return _Source(str(_folder(path)), str(path))
    if path.exists():
        raise ModelError(f"cannot load a Flux pipeline from {model.model!r}: {_EXPECTED}, found a {path.suffix} file")
    if not _HUB_ID.fullmatch(model.model):
        raise ModelError(f"cannot load a Flux pipeline from {model.model!r}: {_EXPECTED}, found no such file or folder")
    return _Source(model.model, model.model)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ModelError(f"{path}: expected a folder of a Flux pipeline, found {'a file' if path.exists() else 'none'}")
    if not (path / "model_index.json").is_file():
        inside = ", ".join(sorted(item.name for item in path.iterdir())[:5]) or "nothing"
        raise ModelError(
            f"cannot load a Flux pipeline from {str(path)!r}: expected a folder with model_index.json, "
            f"as FluxPipeline.save_pretrained writes it, found one with {inside}"
        )
    return path


def _checked_config(source: _Source) -> dict[str, Any]:
    """The transformer's configuration, once the pipeline's index says that it is a Flux 1."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    with _named(source.pipeline):
        index = FluxPipeline.load_config(source.pipeline)
        kind = (index.get("transformer") or [None, None])[1]
        if kind != "FluxTransformer2DModel":
            raise ModelError(
                f"{source.pipeline}: expected a pipeline with a FluxTransformer2DModel (Flux 1), "
                f"found {index.get('_class_name', 'one')} with {kind or 'no transformer'}"
            )
        for part in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae", "scheduler"):
            if (index.get(part) or [None, None])[1] is None:
                raise ModelError(
                    f"{source.pipeline}: expected a whole Flux pipeline, found model_index.json without {part}"
                )
        config = FluxTransformer2DModel.load_config(source.transformer, subfolder="transformer")
    channels, out = config.get("in_channels", 64), config.get("out_channels")
    if out not in (None, channels):
        raise ModelError(
            f"{source.pipeline}: expected a Flux 1 that draws from text alone, found one with {channels} input and "
            f"{out} output channels (Fill, Canny and Depth start from a picture)"
        )
    return config


def _check_quantization(model: Model, source: _Source, config: Mapping[str, Any], device: torch.device) -> None:
    """Refuse before gigabytes are read: missing libraries, no accelerator, quantized twice."""
    saved = config.get("quantization_config") if source.file is None else None
    if saved and model.quantize != "none":
        raise ModelError(
            f"{source.pipeline}: its transformer is quantized already ({saved.get('quant_method')}): "
            f"leave --quantize at none, found {model.quantize}"
        )
    method = {"int8": "torchao", "nf4": "bitsandbytes"}.get(model.quantize)
    if source.file is not None and source.file.suffix == ".gguf":
        method = "gguf"
    if saved:
        method = str(saved.get("quant_method") or "bitsandbytes")  # the oldest files name none
    if method in _LIBRARIES and find_spec(_LIBRARIES[method][0]) is None:
        raise ModelError(f"{model.model}: {method} weights need a library: pip install {_LIBRARIES[method][1]}")
    if method == "bitsandbytes" and device.type == "cpu":
        raise ModelError("bitsandbytes weights need an accelerator, found device cpu: use --quantize fp8 or int8")
    if method is not None and model.offload == "sequential":
        raise ModelError(
            f"offload sequential takes layers apart, which {method} weights do not survive: use offload model"
        )


def _transformer(source: _Source, config: dict[str, Any], model: Model, dtype: torch.dtype) -> FluxTransformer2DModel:
    import diffusers

    quantization: Any = None
    if model.quantize == "int8":
        # by name, for the type checker: an extra that most do without
        torchao = import_module("torchao.quantization")
        quantization = diffusers.TorchAoConfig(torchao.Int8WeightOnlyConfig())
    elif model.quantize == "nf4":
        quantization = diffusers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    options = {"subfolder": "transformer", "dtype": dtype}
    if quantization is not None:
        options["quantization_config"] = quantization
    if source.file is None:
        return diffusers.FluxTransformer2DModel.from_pretrained(source.transformer, **options)
    state = read_transformer(source.file)
    check_fits(source.file, state, config, Path(source.transformer))
    if source.file.suffix == ".gguf":
        options["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    else:  # quantizers take fp8 weights for their own
        state = {key: weight.to(dtype) if weight.itemsize == 1 else weight for key, weight in state.items()}
    return diffusers.FluxTransformer2DModel.from_single_file(state, config=source.transformer, **options)


def _place(pipeline: FluxPipeline, model: Model, device: torch.device) -> None:
    if model.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif model.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)


@contextmanager
def _named(model: str) -> Iterator[None]:
    """Errors of the libraries in a line that names the model."""
    try:
        yield
    except ModelError:
        raise
    except SingleFileError as error:
        raise ModelError(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{model} does not fit the device: use --offload model, or --quantize fp8") from error
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:500]
        here = model in DEMO_MODELS or Path(model).expanduser().exists()
        missing = "" if here else f"{_EXPECTED}, found nothing of that name here, and on the hub: "
        raise ModelError(f"cannot load a Flux pipeline from {model!r}: {missing}{reason}") from error


def _decode_faster(decoder: torch.nn.Module) -> None:
    """On CPUs few pictures at once fit the cache; bfloat16 halves the time where the CPU computes in it.

    Elsewhere bfloat16 is emulated and takes ten times as long. `measure` reads both kinds of pictures as well.
    """
    forward = decoder.forward
    half = computes_in_bfloat16("cpu")

    def in_parts(latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return torch.cat([forward(part).float() for part in latents.split(2)])

    decoder.forward = in_parts
