import hashlib
import json
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import pytest

from fluxtionary.dictionaries import load_dictionary, save_dictionary
from fluxtionary.evaluation.dictionary_report import MEASURES, numbers, shown
from fluxtionary.evaluation.evaluate import DEMO_NOTE, Evaluation, EvaluationError, evaluate, figures_for_header
from fluxtionary.evaluation.reconstruction import evaluate_reconstruction
from fluxtionary.residual import PlanError, Site, SiteError
from fluxtionary.residual.diffusers_host import neurons
from fluxtionary.residual.tokens import Tokens
from fluxtionary.training.capture import Capture, PipelineStream
from fluxtionary.training.sampling import Sampling

from ..conftest import make_dictionary
from .test_spliced import with_small_vae

TRAIN = ["a red circle", "a blue ring", "a cross"]
HELD_OUT = ["a green square", "a <b>yellow</b> star & moon"]
SAMPLING = Sampling(steps=2, batch=2)
CONFIG = Evaluation(held_out=200, train=300, baseline_train=200, baseline_held_out=100, pictures=2, sampling=SAMPLING)


@pytest.fixture(scope="module")
def flux(random_flux):
    return with_small_vae(random_flux)


@pytest.fixture(scope="module")
def dictionaries(flux):
    return {
        "first": make_dictionary("double.1.img"),
        "second <of> double.1": make_dictionary("double.1.img", seed=4),
        "text": make_dictionary("double.0.txt", k=4),
        "hidden": neurons(flux.transformer, "double.1.img.mlp", k=8),
    }


@pytest.fixture(scope="module")
def evaluated(flux, dictionaries, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "made"
    return evaluate(flux, dictionaries, TRAIN, HELD_OUT, CONFIG, out), out


class Page(HTMLParser):
    """Refuses tags that do not nest, and keeps the words and what is loaded."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.loaded, self.counts = [], [], [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def captured(pipeline, prompts, seeds, site):
    site = Site.parse(site)
    stream = PipelineStream(pipeline, prompts, seeds, [site], Capture(), SAMPLING)
    return Tokens.joined([batch[site] for batch in stream.batches()])


def test_figures_are_those_of_the_tokens_of_either_side(flux, dictionaries, evaluated):
    figures, _ = evaluated
    alone = evaluate(
        flux,
        {"first": dictionaries["first"]},
        TRAIN,
        HELD_OUT,
        replace(CONFIG, pictures=0),
        evaluated[1].with_name("alone"),
    )
    train = captured(flux, TRAIN, [0, 2, 4], "double.1.img")
    test = captured(flux, HELD_OUT, [1, 3], "double.1.img")
    assert len(train.x) == 384 and len(test.x) == 256  # 128 a picture
    expected = evaluate_reconstruction(dictionaries["first"], train, [test])
    one = alone["dictionaries"]["first"]
    assert one["reconstruction"]["whole"] == pytest.approx(vars(expected.whole))
    assert one["reconstruction"]["density"] == pytest.approx(list(expected.density))
    assert one["spliced"] is None and one["spliced_note"] is None
    # beside a text site, with few tokens a picture, more pictures are drawn, but the image site takes no more of them
    assert figures["dictionaries"]["first"]["reconstruction"]["whole"]["tokens"] == 256
    assert figures["dictionaries"]["text"]["reconstruction"]["whole"]["tokens"] >= 200


def test_sites_of_every_part_are_measured_and_those_that_can_be_are_spliced(evaluated):
    found = evaluated[0]["dictionaries"]
    for one in found.values():
        assert 0 < one["reconstruction"]["whole"]["fvu"] < 1e6
        assert 0 < one["baselines"]["pca"]["fvu"] < 1
    for name in ("first", "second <of> double.1", "text"):
        spliced = found[name]["spliced"]
        assert spliced["splice"]["velocity"] > 0 and spliced["pictures"] == 2
        assert spliced["recovered"]["velocity"] == pytest.approx(
            1 - spliced["splice"]["velocity"] / spliced["mean"]["velocity"]
        )
    assert found["first"]["spliced"]["mean"] == found["second <of> double.1"]["spliced"]["mean"]
    assert found["first"]["spliced"]["splice"] != found["second <of> double.1"]["spliced"]["splice"]
    assert found["hidden"]["spliced"] is None and "tapped but not edited" in found["hidden"]["spliced_note"]


def test_the_json_holds_what_was_returned(evaluated):
    figures, out = evaluated
    text = (out / "metrics.json").read_text()
    assert json.loads(text) == figures
    assert "NaN" not in text and "Infinity" not in text


def test_the_report_is_whole_html_that_loads_nothing(evaluated, dictionaries):
    page = Page((evaluated[1] / "report.html").read_text())
    assert page.loaded and all(source.startswith("data:image/png;base64,") for source in page.loaded)
    assert len(page.loaded) == 3 * 3 * 2  # plain, spliced and mean of two prompts at three dictionaries
    assert "script" not in page.counts and "link" not in page.counts
    assert page.counts["section"] == len(dictionaries) and page.counts["svg"] == 3 * 4 + 3
    assert set(dictionaries) <= set(page.words)  # names are escaped, not taken for tags
    assert page.counts.get("b", 0) == 4 * 3 + 3  # the cards'; none from the prompt


def test_the_report_holds_the_figures_of_the_json(evaluated):
    figures, out = evaluated
    words = Page((out / "report.html").read_text()).words
    for one in figures["dictionaries"].values():
        parts = {**one, "whole": one["reconstruction"]["whole"], **(one["spliced"] or {})}
        for rows in MEASURES.values():
            for title, _, path in rows:
                first, *rest = path.split(".")
                value = parts.get(first)
                for key in rest:
                    value = None if value is None else value[key]
                assert title in words and shown(value) in words, path
    assert DEMO_NOTE in words and figures["model"]["name"] == "demo Flux"


def test_another_model_is_not_called_the_demo(flux, dictionaries, tmp_path, monkeypatch):
    config = dict(flux.transformer.config) | {"joint_attention_dim": 4096}
    monkeypatch.setattr(type(flux.transformer), "config", property(lambda self: FakeConfig(config)))
    only = {"first": dictionaries["first"]}
    figures = evaluate(flux, only, TRAIN, HELD_OUT, replace(CONFIG, pictures=0), tmp_path)
    assert figures["note"] is None and figures["model"]["name"] != "demo Flux"
    assert "demo" not in (tmp_path / "report.html").read_text()


class FakeConfig(dict):
    __getattr__ = dict.__getitem__


def test_prompts_on_both_sides_are_refused(flux, dictionaries, tmp_path):
    with pytest.raises(EvaluationError, match="found 2 in both, such as 'a blue ring', 'a red circle'"):
        evaluate(flux, dictionaries, TRAIN, [*HELD_OUT, " a  blue ring", "a red circle"], CONFIG, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_would_mean_nothing_is_refused(flux, dictionaries, tmp_path):
    def run(given=dictionaries, train=TRAIN, held_out=HELD_OUT):
        evaluate(flux, given, train, held_out, CONFIG, tmp_path)

    with pytest.raises(EvaluationError, match="expected dictionaries, found none"):
        run(given={})
    with pytest.raises(EvaluationError, match="expected training prompts"):
        run(train=[])
    with pytest.raises(EvaluationError, match="expected held-out prompts"):
        run(held_out=[])
    with pytest.raises(PlanError, match="128 wide.*64 wide"):
        run(given={"narrow": make_dictionary("double.1.img", d_model=64)})
    with pytest.raises(SiteError, match="2 double and 2 single"):
        run(given={"deep": make_dictionary("double.18.img")})
    with pytest.raises(EvaluationError, match="held_out must be at least 1, found 0"):
        Evaluation(held_out=0)
    with pytest.raises(EvaluationError, match="found -1"):
        Evaluation(pictures=-1)


def test_the_prompts_a_dictionary_was_trained_on_are_refused(flux, dictionaries, tmp_path):
    own = make_dictionary("double.1.img")
    sha = hashlib.sha256("\n".join(HELD_OUT).encode()).hexdigest()
    own.provenance = replace(own.provenance, capture={"prompts_sha256": sha})
    with pytest.raises(EvaluationError, match="own was trained on these very held-out prompts"):
        evaluate(flux, {"own": own}, TRAIN, HELD_OUT, CONFIG, tmp_path)


def test_figures_go_into_the_header_of_the_file(evaluated, dictionaries, tmp_path):
    header = figures_for_header(evaluated[0])
    assert header.keys() == dictionaries.keys()
    whole = evaluated[0]["dictionaries"]["first"]["reconstruction"]["whole"]
    assert header["first"]["fvu"] == whole["fvu"] and header["first"]["tokens"] == 256
    assert {"fvu_pca", "fvu_kmeans", "fvu_random_tokens", "velocity_recovered"} <= header["first"].keys()
    assert "velocity_recovered" not in header["hidden"]
    own = make_dictionary("double.1.img")
    own.provenance = replace(own.provenance, metrics=header["first"])
    save_dictionary(own, tmp_path / "own.safetensors")
    assert load_dictionary(tmp_path / "own.safetensors").provenance.metrics == header["first"]


@dataclass
class Noted:
    value: float


def test_numbers_are_plain_json(tmp_path):
    given = {"a": float("nan"), "b": (1, float("inf")), "c": tmp_path / "prompts", "d": Noted(0.5)}
    assert numbers(given) == {"a": None, "b": [1, None], "c": "prompts", "d": {"value": 0.5}}
    assert numbers(Evaluation())["sampling"]["steps"] == 22


def test_figures_are_written_in_few_digits():
    assert [shown(v) for v in (None, 1234567, 0.12345, 22.5791, 0.00123456)] == [
        "none",
        "1,234,567",
        "0.123",
        "22.58",
        "0.00123",
    ]
