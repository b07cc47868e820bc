"""Running a plan in ComfyUI, chained late: nothing is written into the model's own patches.

`patch` gives a clone of a MODEL its wrappers. OUTER_SAMPLE starts and ends the run; DIFFUSION_MODEL copies
`patches_replace` for each call and puts the plan's blocks around whatever is there by then, so that other packs'
patches run whether they were set before or after; APPLY_MODEL sees to it that the blocks were really called.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..dictionaries import Dictionary
from . import block_chain
from .block_chain import Call
from .moment import WHOLE, Area, Moment, PlanError
from .plan import Plan, Run, Stopped
from .site import Site

logger = logging.getLogger(__name__)

KEY = "fluxtionary"
ToSigma = Callable[[float], float]
"""A run's own schedule: share of sampling (0 to 1) to sigma."""


class Start(NamedTuple):
    """What is known when a run starts: its schedule, its seed, the shape of its latent `[batch, channels, h, w]`."""

    to_sigma: ToSigma
    sigmas: tuple[float, ...]
    seed: int | None
    shape: tuple[int, ...]


class Outcome(NamedTuple):
    """How a run ended: the latent it made, and the number of model calls that a cache skipped."""

    latent: Tensor
    skipped: int


class Task:
    """What a node has done in every run of a model that it patched: a plan, made when the run starts.

    A task may be shared by many runs, of which one at a time is under way; what belongs to a run is in its plan.
    """

    name = "Fluxtionary"
    """What errors call the thing that asked for this."""
    stops = False
    """Whether a call of the model may end after the last site of all plans; what it returns is then 0."""

    def plan(self, start: Start) -> Plan:
        """The plan of a run that starts now. Raises what stops the run."""
        raise NotImplementedError

    def finished(self, plan: Plan, outcome: Outcome) -> None:
        """Called after a run that ended well, with the plan it had."""

    def abandoned(self, plan: Plan) -> None:
        """Called after a run that failed or was interrupted, with the plan it had; also when `finished` has failed."""


class _Fixed(Task):
    def __init__(self, plan: Plan | Callable[[ToSigma], Plan], name: str):
        self.made, self.name = plan, name

    def plan(self, start: Start) -> Plan:
        return self.made if isinstance(self.made, Plan) else self.made(start.to_sigma)


def patch(model: Any, plan: Plan | Callable[[ToSigma], Plan] | Task, name: str = "Fluxtionary") -> Any:
    """A clone of a MODEL on which `plan` acts after those it has already; the given model is left as it is.

    A plan that is known only with the run's own schedule is given as a function of it, or as a `Task`. `name` is what
    errors call the thing that asked for this. Raises `PlanError` or `SiteError` where the model is no Flux 1 or the
    plan does not fit it.
    """
    if isinstance(plan, Task):
        task: Task = plan
        model_shape(model)
    else:
        task = _Fixed(plan, name)
        task.plan(Start(lambda percent: 1 - percent, (), None, ())).check(*model_shape(model))
    clone = model.clone()
    earlier = [task for wrapper in clone.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY) for task in wrapper.__self__.tasks]
    host = _Host([*earlier, task])
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, host.outer_sample),
        (WrappersMP.SAMPLER_SAMPLE, host.sampler_sample),
        (WrappersMP.APPLY_MODEL, host.apply_model),
        (WrappersMP.DIFFUSION_MODEL, host.diffusion_model),
    ):
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    return clone


def model_shape(model: Any) -> tuple[int, int, int]:
    """Double blocks, single blocks and residual width of a MODEL. Raises `PlanError` where it is no Flux 1."""
    flux = _uncompiled(model.get_model_object("diffusion_model"))
    names = {kind.__name__ for kind in type(flux).__mro__}
    second = getattr(getattr(flux, "params", None), "global_modulation", False)  # Flux 2 is the same class
    if "Flux" not in names or not hasattr(flux, "double_blocks") or second:
        raise PlanError(
            f"expected a Flux 1 model whose blocks ComfyUI runs, found {'Flux 2' if second else type(flux).__name__} "
            f"(of {type(flux).__module__}). Load Flux with Load Diffusion Model, Load Checkpoint or a GGUF loader; "
            "Nunchaku, TensorRT and Chroma models have no Flux blocks to steer"
        )
    return len(flux.double_blocks), len(flux.single_blocks), flux.hidden_size


def _uncompiled(module: Any) -> Any:
    return getattr(module, "_orig_mod", module)


@dataclass
class _State:
    """A run under way, from the start of sampling to its end."""

    run: Run
    sites: list[Site]
    guider: Any
    latent: tuple[int, int]
    pictures: int
    stop: block_chain.BlockKey | None = None
    checked: bool = False
    skipped: int = 0
    reached: set[block_chain.BlockKey] = field(default_factory=set)

    def missing(self) -> list[Site]:
        return [site for site in self.sites if block_chain.block_key(site) not in self.reached]

    def chunk(self, key: Any, number: int) -> tuple[str, Area]:
        """The role and the area of the conditioning with this uuid.

        The role comes from the guider's own lists: the host's numbers (0 for cond) mean other things to guiders
        of more than two conditionings, and serve only where a guider keeps its conditionings elsewhere.
        """
        for name, conditionings in getattr(self.guider, "conds", {}).items():
            for conditioning in conditionings or ():
                if conditioning.get("uuid") == key:
                    role = "uncond" if "negative" in name else "cond"
                    return role, block_chain.crop_area(conditioning.get("area"), *self.latent)
        return ("uncond" if number else "cond"), WHOLE


class _Host:
    """The wrappers of one patched model, which share the state of the run under way."""

    def __init__(self, tasks: list[Task]):
        self.tasks = tasks
        self.names = " and ".join(dict.fromkeys(task.name for task in tasks))
        self.state: _State | None = None

    def outer_sample(
        self, executor: Any, noise: Any, latent: Any, sampler: Any, sigmas: Any, *args: Any, **kwargs: Any
    ) -> Any:
        guider = executor.class_obj
        sampling = guider.model_patcher.get_model_object("model_sampling")
        seed = kwargs.get("seed", args[3] if len(args) > 3 else None)

        def to_sigma(percent: float) -> float:
            return float(sampling.percent_to_sigma(percent))

        start = Start(to_sigma, tuple(float(sigma) for sigma in sigmas), seed, tuple(noise.shape))
        with ExitStack() as unless_done:
            plans = []
            for task in self.tasks:
                plans.append(task.plan(start))
                unless_done.callback(task.abandoned, plans[-1])
            outcome = self._sampled(plans, start, executor, noise, latent, sampler, sigmas, *args, **kwargs)
            for task, plan in zip(self.tasks, plans, strict=True):
                task.finished(plan, outcome)
            unless_done.pop_all()
        return outcome.latent

    def _sampled(self, plans: list[Plan], start: Start, executor: Any, *args: Any, **kwargs: Any) -> Outcome:
        """Sample with the plans of all tasks in force."""
        guider = executor.class_obj
        whole = Plan(item for plan in plans for item in plan)
        whole.check(*model_shape(guider.model_patcher))
        run = Run(_near(whole, guider.model_patcher.load_device))
        state = _State(run, whole.sites(), guider, (start.shape[-2], start.shape[-1]), start.shape[0])
        if any(task.stops for task in self.tasks) and (last := whole.last_site()):
            state.stop = block_chain.block_key(last)
        before, self.state = self.state, state
        try:
            latent = executor(*args, **kwargs)
        finally:
            self.state = before
        # a model whose own `apply_model` never asked us
        if state.sites and not state.checked and len(start.sigmas) > 1:
            raise self._unreached(state.sites)
        self._report(state)
        return Outcome(latent, state.skipped)

    def sampler_sample(self, executor: Any, guider: Any, *args: Any, **kwargs: Any) -> Any:
        """Give every conditioning a uuid of its own: for areas the host copies them, uuid and all, between lists."""
        seen = set()
        for conditionings in guider.conds.values():
            for conditioning in conditionings or ():
                if conditioning.get("uuid") in seen:
                    conditioning["uuid"] = uuid.uuid4()
                seen.add(conditioning.get("uuid"))
        return executor(guider, *args, **kwargs)

    def apply_model(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """After a call: the first must have reached every block, later ones may have been skipped by a cache."""
        state = self.state
        if state is None:
            return executor(*args, **kwargs)
        state.reached.clear()
        hooked = any(site.part == "mlp" for site in state.sites)  # compiled code does not call hooks that came later
        with torch.compiler.set_stance("force_eager") if hooked else nullcontext():
            out = executor(*args, **kwargs)
        missing = state.missing()
        if missing and not state.checked:
            raise self._unreached(missing)
        state.checked = True
        state.skipped += bool(missing)
        return out

    def diffusion_model(self, executor: Any, x: Any, timestep: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        state = self.state
        options, args, kwargs = _own_options(args, kwargs)
        if state is None or options is None:
            return executor(x, timestep, context, *args, **kwargs)
        flux = _uncompiled(executor.class_obj)
        moment = _moment(state, options, x, timestep, flux.patch_size)
        call = Call(moment, moment.grid[0] * moment.grid[1], context.shape[1], state.reached, state.stop)
        replaced = options.get("patches_replace", {})
        dit = block_chain.chain(replaced.get("dit", {}), state.sites, state.run, call, _listener(flux))
        options["patches_replace"] = replaced | {"dit": dit}
        try:
            return executor(x, timestep, context, *args, **kwargs)
        except Stopped:
            return x.new_zeros(len(x), flux.out_channels // flux.patch_size**2, *x.shape[2:])

    def _unreached(self, sites: list[Site]) -> PlanError:
        return PlanError(
            f"{self.names}: the model ran without calling the blocks of {', '.join(map(str, sites))}, so nothing was "
            "steered. It was loaded, compiled or replaced in a way that leaves out ComfyUI's Flux blocks: load it with "
            "Load Diffusion Model or a GGUF loader, or take out the node that replaces them"
        )

    def _report(self, state: _State) -> None:
        """What a user should know after a run in which something did not act, without stopping them."""
        if state.skipped:
            logger.info("%s: %d model calls were skipped by a cache and not steered", self.names, state.skipped)
        for item in state.run.idle():
            logger.info(
                "%s: no step fell into the window of %s at %s (sigma %.3g down to %.3g)",
                self.names,
                type(item).__name__,
                item.site,
                *item.window,
            )


def _near(plan: Plan, device: Any) -> Plan:
    """The plan with its dictionaries on the model's device, so that encoding is done there; where they fit."""
    dictionaries = plan.dictionaries()
    if device.type == "cpu" or not dictionaries:
        return plan
    try:
        comfy.model_management.free_memory(1.1 * sum(map(_bytes, dictionaries)), device)
        return plan.on(device)
    except comfy.model_management.OOM_EXCEPTION:
        logger.warning("no room on %s for the dictionaries: encoding on the CPU, which is slow", device)
        return plan


def _bytes(dictionary: Dictionary) -> int:
    tensors = [value for value in vars(dictionary).values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _moment(state: _State, options: dict[str, Any], x: Any, timestep: Any, patch_size: int) -> Moment:
    """Where sampling stands, and what the rows of this call are."""
    numbers = options.get("cond_or_uncond") or [0]
    keys = options.get("uuids") or [None] * len(numbers)
    chunks = [state.chunk(key, number) for key, number in zip(keys, numbers, strict=True)]
    sigmas = options.get("sigmas", timestep)
    grid = block_chain.token_grid(x.shape[-2], x.shape[-1], patch_size)
    whole = len(chunks) * state.pictures
    # other packs batch the tiles of a picture, tile after tile, each with all chunks
    tiles = len(x) // whole if len(x) % whole == 0 else 1
    rows = tiles * block_chain.batch_rows(chunks, len(x) // tiles)
    return Moment(float(sigmas.flatten()[0]), rows, grid)


def _own_options(args: tuple, kwargs: dict[str, Any]) -> tuple[dict[str, Any] | None, tuple, dict[str, Any]]:
    """The call's transformer_options as a copy that may be changed, put back where it was found."""
    if "transformer_options" in kwargs:
        own = dict(kwargs["transformer_options"])
        return own, args, kwargs | {"transformer_options": own}
    for place, value in enumerate(args):
        if isinstance(value, dict) and "sigmas" in value:
            own = dict(value)
            return own, (*args[:place], own, *args[place + 1 :]), kwargs
    return None, args, kwargs


def _listener(flux: Any) -> block_chain.Listen:
    def listen(site: Site, receive: Callable[[Any], None]) -> AbstractContextManager[None]:
        if site.stage == "double":
            block = flux.double_blocks[site.block]
            return block_chain.hearing((block.img_mlp if site.stream == "img" else block.txt_mlp)[1], receive)
        return block_chain.hearing(flux.single_blocks[site.block].mlp_act, receive)

    return listen
