"""The `fluxtionary` command: one subcommand for each offline tool.

The options are the fields of the dataclasses below, so `fluxtionary COMMAND --help` and the code cannot differ.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

# Before diffusers and transformers load: their advice about optional packages is not the user's concern here.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import tyro

from .evaluation.demonstration import Demonstration
from .training.sae import SAETraining
from .training.sampling import Sampling


class OutputError(ValueError):
    """An output that cannot or must not be written."""


@dataclass(frozen=True, kw_only=True)
class Demo(Demonstration):
    """The main job: judge the demo Flux, train a dictionary of its residual stream, steer pictures, report."""

    out: Path
    """Folder for report.html, summary.json and every judged picture."""
    overwrite: bool = False
    """Replace the folder if an earlier demo wrote it."""

    def run(self) -> None:
        from .evaluation.demonstration import MainJob
        from .evaluation.report import write_report

        with _folder(self.out, self.overwrite, marker="summary.json") as folder:
            job = MainJob(self, say=lambda text: print(text, flush=True))
            figures = write_report(job.run(folder), self, folder)
        steering, dictionary = figures["steering"], figures["dictionary"]
        print(
            f"steering: {steering['success']:.1%} take the color asked for (n = {steering['n']}), "
            f"collateral {steering['collateral']:.1%}\n"
            f"dictionary: fvu {dictionary['fvu']:.3f}, PCA {figures['baselines']['pca']['fvu']:.3f}\n"
            f"report: {self.out / 'report.html'}"
        )


@dataclass(frozen=True)
class TrainSae:
    """Train a sparse autoencoder on one site, from activations streamed out of a Flux while it draws."""

    out: Path
    """The dictionary file to write (.safetensors)."""
    model: str = "demo"
    """demo, demo-small, a folder that FluxPipeline loads, or a hub id."""
    site: str = "double.1.img"
    """Where in the residual stream, such as double.18.img."""
    prompts: Path | None = None
    """Text file, one prompt a line; the demo models have captions of their own."""
    overwrite: bool = False
    """Replace the file if there is one."""
    seed: int = 0
    """Seed of the pictures that are drawn; the training has its own."""
    sae: SAETraining = field(default_factory=SAETraining)
    sampling: Sampling = field(default_factory=Sampling)

    def run(self) -> None:
        from .dictionaries import save_dictionary
        from .residual import Plan, Site, Tap
        from .residual.diffusers_host import model_shape
        from .training.buffer import ShuffleBuffer
        from .training.capture import capture, capture_header
        from .training.sae import train_sae
        from .training.sampling import check_size, load_pipeline, text_length

        _writable(self.out, self.overwrite)
        site = Site.parse(self.site)
        check_size(self.model, self.sampling)
        prompts = _prompts(self.model, self.prompts)
        pipeline = load_pipeline(self.model)
        Plan([Tap(site)]).check(*model_shape(pipeline.transformer))
        seeds = [self.seed * 1_000_000 + i for i in range(len(prompts))]
        stream = capture(pipeline, prompts, seeds, site, self.sampling)
        buffer = ShuffleBuffer(stream, self.sae.buffer, self.sae.reuse, self.sae.seed)
        header = capture_header(prompts, self.sampling, text_length(pipeline), 0)
        dictionary = train_sae(buffer, site, self.sae, {"family": "flux1", "name": self.model}, header)
        save_dictionary(dictionary, self.out)
        print(f"{self.out}: {dictionary.n_features} features of {site}, {dictionary.provenance.training}")
        if dictionary.provenance.training["interrupted"]:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Steer:
    """Draw a picture twice, plain and steered with features of a dictionary, and save the two side by side."""

    prompt: str
    """What to draw."""
    feature: tuple[int, ...]
    """Feature numbers; their directions are added one by one."""
    out: Path
    """The picture to write (.png)."""
    strength: float = 0.6
    """Size of the change, as a share of the size of the activations there."""
    dictionary: str = "demo"
    """A dictionary file, or demo for the one that comes with the demo Flux."""
    model: str = "demo"
    """demo, demo-small, a folder that FluxPipeline loads, or a hub id."""
    start: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Share of sampling after which the change begins, 0 to 1."""
    end: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 1.0
    """Share of sampling after which it ends."""
    where: tuple[int, ...] = ()
    """Act only on tokens where one of these features is active; everywhere by default."""
    seed: int = 0
    """Seed of the noise."""
    overwrite: bool = False
    """Replace the picture if there is one."""
    sampling: Sampling = field(default_factory=Sampling)

    def run(self) -> None:
        import numpy as np
        from PIL import Image

        from .demo import files
        from .demo.captions import check_caption
        from .dictionaries import load_dictionary
        from .residual import Add, Gate, Plan, PlanError, Site, Window
        from .residual.diffusers_host import percent_to_sigma
        from .training.sampling import DEMO_MODELS, check_size, draw_pictures, load_pipeline

        _writable(self.out, self.overwrite)
        check_size(self.model, self.sampling)
        if not self.feature:
            raise PlanError("--feature needs at least one feature number")
        if self.model in DEMO_MODELS:
            check_caption(self.prompt)
        dictionary = load_dictionary(files.DICTIONARY if self.dictionary == "demo" else self.dictionary)
        pipeline = load_pipeline(self.model)
        to_sigma = percent_to_sigma(pipeline, self.sampling.height, self.sampling.width)
        window = Window.from_percent(self.start, self.end, to_sigma)
        gate = Gate(dictionary, self.where) if self.where else None
        site = Site.parse(dictionary.site)
        plan = Plan(
            Add(site, dictionary.direction(f), self.strength, dictionary.scale, window=window, gate=gate)
            for f in self.feature
        )
        pictures = [draw_pictures(pipeline, [self.prompt], [self.seed], self.sampling, p)[0] for p in (None, plan)]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(pictures, axis=1)).save(self.out)
        if dictionary.natural is not None:
            natural = ", ".join(f"{f}: {float(dictionary.natural[f]):.2f}" for f in self.feature)
            print(f"strength {self.strength}; where these features are active by themselves they reach {natural}")
        print(f"{self.out}: plain on the left, steered on the right")


@dataclass(frozen=True)
class Inspect:
    """Print what a dictionary file is, for which model and site, and its figures."""

    path: tyro.conf.Positional[Path]
    """A dictionary or steering vector file (.safetensors), or another project's folder."""

    def run(self) -> None:
        from .dictionaries.importers import IMPORTERS, recognise
        from .dictionaries.summary import summarise

        if self.path.is_dir():
            name = recognise(self.path)
            print(f"{self.path}: {name} ({IMPORTERS[name].files}); `fluxtionary import` makes a dictionary file of it")
        else:
            print(summarise(self.path))


@dataclass(frozen=True)
class Import:
    """Make a dictionary file of another project's: sparsify, SAELens, dictionary_learning, flux1-saes, ITDA, ..."""

    source: tyro.conf.Positional[str]
    """Folder or file of that project, or a hub id such as owner/name/folder. Its format is recognised."""
    site: str
    """Where in the residual stream its activations come from, such as double.18.img."""
    out: Path
    """The dictionary file to write (.safetensors)."""
    overwrite: bool = False
    """Replace the file if there is one."""

    def run(self) -> None:
        from .dictionaries import save_dictionary
        from .dictionaries.importers import import_dictionary
        from .dictionaries.summary import summarise
        from .residual import Site
        from .training.hub import local_folder

        _writable(self.out, self.overwrite)
        save_dictionary(import_dictionary(local_folder(self.source), str(Site.parse(self.site))), self.out)
        print(summarise(self.out))


@dataclass(frozen=True)
class Export:
    """Write a sparse autoencoder as a folder that another library loads."""

    path: tyro.conf.Positional[Path]
    """The dictionary file (.safetensors)."""
    format: Literal["saelens", "sparsify"]
    """The library that is to load it."""
    out: Path
    """The folder to write; it must not exist."""

    def run(self) -> None:
        from .dictionaries import load_dictionary
        from .dictionaries.exporters import export_dictionary

        export_dictionary(load_dictionary(self.path), self.out, self.format)
        print(f"{self.out}: {self.path.name} for {self.format}")


def _prompts(model: str, path: Path | None) -> list[str]:
    from .demo.captions import check_caption
    from .training.sampling import DEMO_MODELS, ModelError

    if path is None:
        if model not in DEMO_MODELS:
            raise ModelError(f"--prompts is needed for {model!r}: a text file with one prompt a line")
        from .evaluation.cases import sample_cases

        return [case.caption for case in sample_cases(2000, 2, "train")]
    prompts = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not prompts:
        raise ModelError(f"{path}: expected one prompt a line, found none")
    if model in DEMO_MODELS:
        for prompt in prompts:
            check_caption(prompt)
    return prompts


def _writable(path: Path, overwrite: bool) -> None:
    """Refuse an output before hours of work rather than after."""
    if path.is_dir():
        raise OutputError(f"{path}: expected a file to write, found a folder")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already: choose another --out, or pass --overwrite")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()  # asking permission is not enough: root has it on read-only disks
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {parent}: {error.strerror}; choose another --out") from error


@contextmanager
def _folder(path: Path, overwrite: bool, marker: str) -> Iterator[Path]:
    """A folder that appears whole: work goes on beside it, and takes its name when all is done."""
    if path.exists():
        if not path.is_dir():
            raise OutputError(f"{path}: expected a folder to write, found a file")
        ours = (path / marker).exists() or not any(path.iterdir())
        if not (ours and overwrite) and any(path.iterdir()):
            hint = "pass --overwrite" if ours else f"it holds no {marker}, so --overwrite would not replace it either"
            raise OutputError(f"{path} exists already: choose another --out; {hint}")
    _writable(path / marker, overwrite=True)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    try:
        yield partial
    except BaseException:
        if any(partial.iterdir()):
            kept = path.with_name(f"{path.name}.unfinished")
            shutil.rmtree(kept, ignore_errors=True)
            partial.rename(kept)
            print(f"what was finished so far is in {kept}", file=sys.stderr)
        else:
            partial.rmdir()
        raise
    if path.exists():
        shutil.rmtree(path)
    partial.chmod(0o755)
    partial.rename(path)


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": Demo,
    "train-sae": TrainSae,
    "steer": Steer,
    "inspect": Inspect,
    "import": Import,
    "export": Export,
}


def main() -> None:
    """Run a subcommand; errors the user can mend are one line and exit 2, an interruption exits 130."""
    from .demo.captions import CaptionError
    from .dictionaries import DictionaryFileError, FeatureError
    from .dictionaries.exporters import ExportError
    from .residual import PlanError, SiteError
    from .training.sampling import ModelError

    of_files = (DictionaryFileError, ExportError, FeatureError, OutputError)
    of_models = (CaptionError, ModelError, PlanError, SiteError)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.ERROR)
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS).run()
    except (*of_files, *of_models, OSError) as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt:
        print("fluxtionary: interrupted; nothing that was there before was changed", file=sys.stderr)
        sys.exit(130)


def _complain(text: str) -> int:
    print(f"fluxtionary: error: {text}", file=sys.stderr)
    return 2
