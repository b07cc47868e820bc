"""The `fluxtionary` command: one subcommand for each offline tool.

The options are the fields of the dataclasses in `commands`, so `fluxtionary COMMAND --help` and the code cannot differ.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

# Before diffusers and transformers load: their advice about optional packages is not the user's concern here.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import tyro

from .commands.atlas import BuildAtlas, ScoreOutputs, SearchAtlas, ShowFeature
from .commands.compare import Compare
from .commands.contrast import ContrastPrompts
from .commands.demo import Demo
from .commands.evaluate import Evaluate
from .commands.files import Export, Import, Inspect
from .commands.find import Find
from .commands.interpret import ExplainAtlas, ScoreAtlas
from .commands.make import BuildItda, CaptureActivations, CompareItda, TrainSae
from .commands.steer import Steer
from .commands.study import StudySteering

ATLAS: dict[str, Callable[..., Any]] = {
    "build": BuildAtlas,
    "search": SearchAtlas,
    "show": ShowFeature,
    "explain": ExplainAtlas,
    "score": ScoreAtlas,
    "output-score": ScoreOutputs,
}
COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": Demo,
    "capture": CaptureActivations,
    "train-sae": TrainSae,
    "build-itda": BuildItda,
    "compare-itda": CompareItda,
    "evaluate": Evaluate,
    "contrast": ContrastPrompts,
    "steer": Steer,
    "find": Find,
    "compare": Compare,
    "study-steering": StudySteering,
    "inspect": Inspect,
    "import": Import,
    "export": Export,
}


def main() -> None:
    """Run a subcommand; errors the user can mend are one line and exit 2, an interruption exits 130.

    Those errors are `ValueError`s, and `IndexError`s for features, that this package raises in words; anything else
    that goes wrong is a fault of the program and shows where.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "httpx2", "openai"):  # a line for every request otherwise
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        _app().cli().run()
    except _mendable() as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt as interruption:
        said = str(interruption) or "nothing that was there before was changed"
        print(f"fluxtionary: interrupted; {said}", file=sys.stderr)
        sys.exit(130)


def _app() -> tyro.extras.SubcommandApp:
    app, atlas = tyro.extras.SubcommandApp(), tyro.extras.SubcommandApp()
    for name, command in COMMANDS.items():
        app.command(name=name)(command)
    for name, command in ATLAS.items():
        atlas.command(name=name)(command)
    app.command(atlas, name="atlas", help="A dictionary's features as a catalogue: build it, explain it, look into it.")
    return app


def _mendable() -> tuple[type[BaseException], ...]:
    from .atlas import AtlasError
    from .commands.output import OutputError
    from .demo.captions import CaptionError
    from .dictionaries import DictionaryFileError, FeatureError
    from .dictionaries.exporters import ExportError
    from .evaluation.evaluate import EvaluationError
    from .interpretation.cache import CacheError
    from .interpretation.endpoint import EndpointError
    from .residual import PlanError, SiteError
    from .residual.shards import ShardError
    from .training.checkpoint import CheckpointError
    from .training.models import ModelError
    from .training.prompts import PromptError
    from .training.sae import TrainingError

    of_files = (CheckpointError, DictionaryFileError, ExportError, FeatureError, OutputError, PromptError, ShardError)
    of_atlases = (AtlasError, CacheError, EndpointError)
    of_runs = (EvaluationError, ModelError, PlanError, SiteError, TrainingError)
    return (*of_files, *of_atlases, *of_runs, CaptionError, OSError)


def _complain(text: str) -> int:
    print(f"fluxtionary: error: {text}", file=sys.stderr)
    return 2
