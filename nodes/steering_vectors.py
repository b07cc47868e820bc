"""Load, save and combine steering vectors: `models/flux_steering_vectors/` and the arithmetic of what lies there."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Literal, get_args

import folder_paths
from comfy_api.latest import io, ui

from ..dictionaries import DictionaryFileError, SteeringVector, load_vector, read_header, save_dictionary
from ..dictionaries.schema import shown
from ..dictionaries.summary import summarise
from .load_dictionary import fingerprint, list_folder
from .names import inside
from .sockets import FluxSteeringVector

FOLDER = "flux_steering_vectors"
NO_FILE = f"no file in models/{FOLDER} yet"
"""What the list shows where there is nothing: with an empty list a browser sends no value at all."""

Operation = Literal["add", "subtract", "scale", "interpolate", "orthogonal", "unit", "negate"]
OF_TWO = ("add", "subtract", "interpolate", "orthogonal")
WITH_AMOUNT = ("add", "subtract", "scale", "interpolate")

ROUNDING = 1e-6
"""Share of a length that the rounding of float32 leaves of it where two vectors cancel out."""


def register_folder() -> None:
    """Have ComfyUI list `models/flux_steering_vectors/`."""
    list_folder(FOLDER)


class LoadSteeringVector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryLoadSteeringVector",
            display_name="Load Steering Vector",
            category="Fluxtionary",
            description=f"A direction to steer Flux along, from a file. Put files into models/{FOLDER}.",
            inputs=[
                io.Combo.Input(
                    "vector",
                    options=folder_paths.get_filename_list(FOLDER) or [NO_FILE],
                    tooltip="A steering vector file (.safetensors). It fits the model it was made for, and no other.",
                )
            ],
            outputs=[
                FluxSteeringVector.Output(display_name="vector"),
                io.String.Output(display_name="about", tooltip="What the file says of itself."),
            ],
        )

    @classmethod
    def validate_inputs(cls, vector: str | None = None) -> bool | str:
        names = folder_paths.get_filename_list(FOLDER)
        if vector is None or vector in names:  # None: it comes along a wire, and `execute` sees it
            return True
        found = f"{shown(vector)}, and {len(names)} others there" if names else "none there"
        return (
            f"expected a file in models/{FOLDER}, found {found}. Put a steering vector (.safetensors) there, or make "
            f"one with Save Steering Vector, then refresh the list (key R)"
        )

    @classmethod
    def fingerprint_inputs(cls, vector: str) -> str:
        return fingerprint(FOLDER, vector)

    @classmethod
    def execute(cls, vector: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(FOLDER, vector)
        kind = read_header(path)[0]["kind"]
        if kind != "vector":
            raise DictionaryFileError(
                path,
                "a steering vector",
                f"a dictionary of kind {kind}: move it into models/flux_dictionaries and use Load Dictionary",
            )
        # a copy, since what is read is a map of a file that Save Steering Vector may replace
        return io.NodeOutput(deepcopy(load_vector(path)), summarise(path))


class SaveSteeringVector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionarySaveSteeringVector",
            display_name="Save Steering Vector",
            category="Fluxtionary",
            description=f"Saves a steering vector into models/{FOLDER}, where Load Steering Vector lists it.",
            is_output_node=True,
            inputs=[
                FluxSteeringVector.Input("vector", tooltip="The steering vector to save."),
                io.String.Input(
                    "name",
                    default="my-vector",
                    tooltip=f"The file's name in models/{FOLDER}. A / puts it into a subfolder: colors/red.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="On: replaces a file of this name. Off: keeps it, and saves as name_00002 and so on.",
                ),
            ],
            outputs=[FluxSteeringVector.Output(display_name="vector")],
        )

    @classmethod
    def execute(cls, vector: SteeringVector, name: str, overwrite: bool) -> io.NodeOutput:
        path = place(name)
        if not overwrite:
            path = unused(path)
        try:
            save_dictionary(vector, path)
        except OSError as error:
            raise ValueError(f"name: expected a place to write a file, found that {path} is none ({error})") from error
        return io.NodeOutput(vector, ui=ui.PreviewText(str(path)))


class VectorArithmetic(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryVectorArithmetic",
            display_name="Vector Arithmetic",
            category="Fluxtionary",
            description="Makes a steering vector of one or two others, site by site.",
            inputs=[
                FluxSteeringVector.Input("a", tooltip="The first steering vector."),
                io.Combo.Input(
                    "operation",
                    options=list(get_args(Operation)),
                    default="add",
                    tooltip="add: a + amount * b. subtract: a - amount * b. scale: amount * a. interpolate: straight "
                    "from a to b. orthogonal: a without its part along b. unit: a at length 1. negate: -a.",
                ),
                io.Float.Input(
                    "amount",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="add, subtract: how much of b. scale: the factor. interpolate: 0 is a, 1 is b, 0.5 is "
                    "halfway. Not used by orthogonal, unit and negate.",
                ),
                FluxSteeringVector.Input(
                    "b",
                    optional=True,
                    tooltip="The second steering vector, at the same sites as a. "
                    "add, subtract, interpolate and orthogonal need it.",
                ),
            ],
            outputs=[FluxSteeringVector.Output(display_name="vector")],
        )

    @classmethod
    def execute(
        cls, a: SteeringVector, operation: Operation, amount: float, b: SteeringVector | None = None
    ) -> io.NodeOutput:
        if operation in WITH_AMOUNT and not math.isfinite(amount):
            raise ValueError(f"amount: expected a finite number for {operation}, found {amount}")
        if operation not in OF_TWO:
            return io.NodeOutput(_named(operation, ["a"], lambda: of_one(a, operation, amount)))
        if b is None:
            raise ValueError(
                f"b: expected a second steering vector for {operation}, found nothing connected. "
                f"Of a alone there are scale, unit and negate"
            )
        _check_alike(a, b)
        return io.NodeOutput(_named(operation, ["a", "b"], lambda: of_two(a, b, operation, amount)))


def place(name: str) -> Path:
    """The file that `name` means, inside the folder that Load Steering Vector looks into first.

    Raises `ValueError` for a name that is no plain one.
    """
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    return inside(folder, name, "name", "colors/red-2", ".safetensors")


def unused(path: Path) -> Path:
    """`path`, or where that is taken the first free of `name_00002`, `name_00003` and so on."""
    if not path.exists():
        return path
    numbered = (path.with_name(f"{path.stem}_{number:05}{path.suffix}") for number in count(2))
    return next(candidate for candidate in numbered if not candidate.exists())


def of_one(a: SteeringVector, operation: Operation, amount: float) -> SteeringVector:
    if operation == "scale":
        return amount * a
    return a.unit() if operation == "unit" else -a


def of_two(a: SteeringVector, b: SteeringVector, operation: Operation, amount: float) -> SteeringVector:
    if operation == "orthogonal":
        return a.orthogonal_to(b)
    if operation == "interpolate":
        made, shares = a.interpolate(b, amount), (1 - amount, amount)
    elif amount == 0:  # there is no vector of length 0 to add
        return a
    else:
        made, shares = (a + amount * b if operation == "add" else a - amount * b), (1.0, amount)
    for site in made.sites:
        lengths = [abs(share) * float(v.directions[site].norm()) for share, v in zip(shares, (a, b), strict=True)]
        if float(made.directions[site].norm()) <= ROUNDING * max(lengths):
            raise ValueError(f"at {site} the two cancel out")
    return made


def _check_alike(a: SteeringVector, b: SteeringVector) -> None:
    if set(a.sites) != set(b.sites):
        common = [site for site in a.sites if site in b.sites]
        raise ValueError(
            f"b: expected a vector at the sites of a ({', '.join(a.sites)}), found {', '.join(b.sites)}; "
            f"they share {'only ' + ', '.join(common) if common else 'none'}"
        )
    if a.d_model != b.d_model:
        raise ValueError(
            f"b: expected a vector of the width of a ({a.d_model}), found width {b.d_model}: is it for another model?"
        )


def _named(operation: Operation, inputs: list[str], make: Callable[[], SteeringVector]) -> SteeringVector:
    try:
        return make()
    except ValueError as error:
        inputs += ["amount"] if operation in WITH_AMOUNT else []
        raise ValueError(f"{', '.join(inputs)}: {operation} leaves no steering vector: {error}") from error
