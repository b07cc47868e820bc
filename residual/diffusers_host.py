"""Running a plan in a diffusers `FluxPipeline`.

`attach` puts forward hooks on the blocks that the plan names and takes them away again, whatever happens in
between. diffusers itself is not imported: the pipeline brings it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..dictionaries import Neurons, Provenance
from .moment import Moment, Row
from .plan import Plan, Run, Stopped
from .site import Site, SiteError


def model_shape(transformer: Any) -> tuple[int, int, int]:
    """Double blocks, single blocks and residual width of a diffusers Flux transformer."""
    missing = [
        name
        for name in ("transformer_blocks", "single_transformer_blocks", "inner_dim")
        if not hasattr(transformer, name)
    ]
    if missing:
        raise TypeError(
            f"expected a Flux transformer of diffusers, found {type(transformer).__name__} without {', '.join(missing)}"
        )
    return len(transformer.transformer_blocks), len(transformer.single_transformer_blocks), transformer.inner_dim


def neurons(transformer: Any, site: Site | str, k: int = 64) -> Neurons:
    """A block's hidden MLP units as a dictionary, with the columns of its down-projection as directions.

    `site` is an `.mlp` site such as `double.18.img.mlp`. A single block has one MLP for both streams, beside its
    attention: the units are the later columns of `proj_out`. Raises `SiteError` where the model has no such site.
    """
    site = Site.parse(site)
    if site.part != "mlp":
        raise SiteError(f"neurons live at an .mlp site, found {site}: did you mean {site._replace(part='mlp')}?")
    double, single, width = model_shape(transformer)
    site.check_depth(double, single)
    if site.stage == "double":
        block = transformer.transformer_blocks[site.block]
        weight = (block.ff if site.stream == "img" else block.ff_context).net[2].weight
    else:
        weight = transformer.single_transformer_blocks[site.block].proj_out.weight[:, width:]
    columns = weight.detach().float().T.contiguous()
    return Neurons(str(site), columns, min(k, len(columns)), provenance=Provenance(model={"family": "flux1"}))


@contextmanager
def attach(pipeline: Any, plan: Plan, stop: Callable[[int], bool] | None = None) -> Iterator[Run]:
    """Have `plan` act in every call of `pipeline` inside the `with` block; yields the `Run` that holds tap records.

    With `stop`, call `i` of the transformer (from 0) ends after the last block that the plan names when `stop(i)`
    is true: `Stopped` is raised there, through the pipeline, for the caller to catch. Blocks after it are not
    computed: a capture at `double.18` needs 19 of 57.

    Raises `SiteError` or `PlanError`, before anything is touched, where the plan does not fit the model.
    """
    transformer = pipeline.transformer
    plan.check(*model_shape(transformer))
    run = Run(plan)
    call = _Call(transformer)
    with ExitStack() as stack:
        stack.enter_context(call.watched())
        for site in plan.sites():
            handle = _hook(transformer, site, run, call)
            stack.callback(handle.remove)
        if stop is not None and (last := plan.last_site()):
            stack.callback(_block(transformer, last).register_forward_hook(_stopper(call, stop)).remove)
        yield run


def percent_to_sigma(pipeline: Any, height: int, width: int) -> Callable[[float], float]:
    """The share of sampling done (0 to 1) as a sigma, by the pipeline's own flow schedule at a picture size."""
    scheduler = pipeline.scheduler
    shift = scheduler.config.get("shift", 1.0)
    mu = None
    if scheduler.config.get("use_dynamic_shifting", False):
        tokens = (height // (pipeline.vae_scale_factor * 2)) * (width // (pipeline.vae_scale_factor * 2))
        few, many = scheduler.config.base_image_seq_len, scheduler.config.max_image_seq_len
        low, high = scheduler.config.base_shift, scheduler.config.max_shift
        mu = low + (tokens - few) * (high - low) / (many - few)

    def convert(percent: float) -> float:
        left = 1.0 - percent
        if left <= 0:
            return 0.0
        if mu is not None:
            return float(scheduler.time_shift(mu, 1.0, torch.tensor(left)))
        return shift * left / (1 + (shift - 1) * left)

    return convert


class _Call:
    """What is known of the transformer call under way."""

    def __init__(self, transformer: Any):
        self.transformer = transformer
        self.context = "cond"
        self.moment = Moment(1.0, (), (0, 0))
        self.image_tokens = 0
        self.text_tokens = 0
        self.number = -1

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Follow the transformer's arguments and its `cache_context`, which names cond and uncond calls."""
        original = getattr(self.transformer, "cache_context", nullcontext)

        @contextmanager
        def cache_context(name: str, **kwargs: Any) -> Iterator[None]:
            before, self.context = self.context, name
            try:
                with original(name, **kwargs):
                    yield
            finally:
                self.context = before

        handle = self.transformer.register_forward_pre_hook(self._enter, with_kwargs=True)
        self.transformer.cache_context = cache_context
        try:
            yield
        finally:
            handle.remove()
            del self.transformer.cache_context

    def _enter(self, module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        self.number += 1
        names = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids", "txt_ids")
        given = dict(zip(names, args, strict=False)) | kwargs
        ids: Tensor = given["img_ids"].reshape(-1, given["img_ids"].shape[-1])[: given["hidden_states"].shape[1]]
        # reference tokens (Kontext) carry another first id and follow the picture's own
        own = ids[ids[:, 0] == 0]
        grid = (int(own[:, 1].max()) + 1, int(own[:, 2].max()) + 1)
        role = "uncond" if self.context == "uncond" else "cond"
        batch = given["hidden_states"].shape[0]
        self.image_tokens = len(own)
        self.text_tokens = given["encoder_hidden_states"].shape[1]
        rows = tuple(Row(role, picture) for picture in range(batch))
        self.moment = Moment(float(given["timestep"].reshape(-1)[0]), rows, grid)


def _block(transformer: Any, site: Site) -> Any:
    blocks = transformer.transformer_blocks if site.stage == "double" else transformer.single_transformer_blocks
    return blocks[site.block]


def _stopper(call: _Call, stop: Callable[[int], bool]) -> Callable[..., None]:
    def hook(module: Any, args: tuple, output: Any) -> None:
        if stop(call.number):
            raise Stopped

    return hook


def _hook(transformer: Any, site: Site, run: Run, call: _Call) -> Any:
    """Put one forward hook where a site is, and return its handle."""
    double = site.stage == "double"
    block = _block(transformer, site)

    if site.part == "mlp":

        def on_mlp(module: Any, args: tuple, units: Tensor) -> None:
            if double:
                own = units[:, : call.image_tokens] if site.stream == "img" else units
            elif site.stream == "img":
                own = units[:, call.text_tokens : call.text_tokens + call.image_tokens]
            else:
                own = units[:, : call.text_tokens]
            run.visit(site, own, call.moment)

        if double:
            return (block.ff if site.stream == "img" else block.ff_context).net[0].register_forward_hook(on_mlp)
        return block.act_mlp.register_forward_hook(on_mlp)

    def on_block(
        module: Any, args: tuple, kwargs: dict[str, Any], output: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        text, image = output
        whole = image if site.stream == "img" else text
        count = call.image_tokens if site.stream == "img" else call.text_tokens
        stream = whole[:, :count]
        if site.part == "update":
            name = "hidden_states" if site.stream == "img" else "encoder_hidden_states"
            before = kwargs[name] if name in kwargs else args[0 if site.stream == "img" else 1]
            run.visit(site, stream - before[:, :count], call.moment)
            return None
        changed = run.visit(site, stream, call.moment)
        if changed is stream:
            return None
        whole = torch.cat([changed, whole[:, count:]], 1) if count < whole.shape[1] else changed
        return (text, whole) if site.stream == "img" else (whole, image)

    return block.register_forward_hook(on_block, with_kwargs=True)
