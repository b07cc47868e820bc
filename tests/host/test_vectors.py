"""Steering vectors in the host: saved, listed, loaded and combined, and what goes wrong on the way."""

from __future__ import annotations

import shutil

import pytest
import torch

from fluxtionary.dictionaries import Provenance, Scale, SteeringVector, load_vector, save_dictionary

from ..conftest import make_dictionary
from .comfy_server import Graph, NodeError

SITE, OTHER_SITE = "double.1.img", "single.0.img"
LOAD, SAVE = "FluxtionaryLoadSteeringVector", "FluxtionarySaveSteeringVector"
COMBINE, LOAD_DICTIONARY = "FluxtionaryVectorArithmetic", "FluxtionaryLoadDictionary"


def made(seed, *sites, width=192, **more):
    generator = torch.Generator().manual_seed(seed)
    sites = sites or (SITE,)
    return SteeringVector({site: torch.randn(width, generator=generator) for site in sites}, **more)


A = made(
    0,
    scales={SITE: Scale(torch.linspace(1, 3, 20))},
    provenance=Provenance(
        model={"family": "flux1", "name": "fluxtionary-demo"},
        training={"method": "mean difference", "pairs": 12},
        metrics={"auroc": 0.9},
    ),
)
VECTORS = {
    "a": A,
    "b": made(1),
    "twice-a": 2 * A,
    "two-sites": made(2, SITE, OTHER_SITE),
    "two-more": made(3, SITE, OTHER_SITE),
    "elsewhere": made(4, OTHER_SITE),
    "wide": made(5, width=256),
}


@pytest.fixture(scope="module")
def folder(comfy):
    folder = comfy.base / "models" / "flux_steering_vectors"
    for name, vector in VECTORS.items():
        save_dictionary(vector, folder / f"{name}.safetensors")
    save_dictionary(make_dictionary(SITE, 192), folder / "dictionary.safetensors")
    (folder / "damaged.safetensors").write_bytes(b"no vector at all")
    (folder / "notes.txt").write_text("no vector")
    yield folder
    shutil.rmtree(folder)
    folder.mkdir()  # ComfyUI minds when a folder that it listed is gone


class Vectors(Graph):
    def load(self, name):
        return self.add(LOAD, vector=f"{name}.safetensors")

    def save(self, vector, name, overwrite=True):
        return self.add(SAVE, vector=vector, name=name, overwrite=overwrite)

    def combine(self, a, operation, amount=1.0, b=None):
        return self.add(COMBINE, a=a, operation=operation, amount=amount, **({} if b is None else {"b": b}))


def run_one(comfy, build, name="result"):
    """What is saved of the vector that `build` makes in a graph."""
    graph = Vectors()
    saved = graph.save(build(graph), name)
    return load_vector(comfy.run(graph)[saved[0]]["text"][0])


def listed(comfy):
    return comfy.get(f"/object_info/{LOAD}")[LOAD]["input"]["required"]["vector"][1]["options"]


def files(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*")}


def same(one, other):
    assert one.sites == other.sites
    for site in one.sites:
        assert torch.equal(one.directions[site], other.directions[site])
        scales = [vector.scales.get(site) for vector in (one, other)]
        assert scales[0] is scales[1] is None or torch.equal(scales[0].values, scales[1].values)
    assert one.provenance == other.provenance


def fails(comfy, graph, kind, words):
    """The graph fails at the node of this kind, and the server goes on."""
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(graph)
    assert graph.nodes[error.value.node]["class_type"] == kind
    same(run_one(comfy, lambda graph: graph.load("a"), "still-alive"), A)


@pytest.mark.parametrize("name", ["a", "two-sites"])
def test_what_is_loaded_and_saved_is_the_same_vector(comfy, folder, name):
    same(run_one(comfy, lambda graph: graph.load(name), "copies/of-it"), VECTORS[name])
    assert "copies/of-it.safetensors" in listed(comfy)
    same(run_one(comfy, lambda graph: graph.load("copies/of-it")), VECTORS[name])


def test_the_list_is_of_vector_files_alone(comfy, folder):
    assert {"a.safetensors", "damaged.safetensors"} <= set(listed(comfy))
    assert "notes.txt" not in listed(comfy)


@pytest.mark.parametrize(
    ("operation", "amount", "names", "expected"),
    [
        ("add", 1.0, "ab", lambda a, b: a + b),
        ("add", -0.5, "ab", lambda a, b: a + -0.5 * b),
        ("add", 0.0, "ab", lambda a, b: a),
        ("subtract", 2.0, "ab", lambda a, b: a - 2.0 * b),
        ("scale", 0.25, "a", lambda a: a * 0.25),
        ("scale", -3.0, "ab", lambda a, b: a * -3.0),
        ("interpolate", 0.0, "ab", lambda a, b: a.interpolate(b, 0.0)),
        ("interpolate", 0.3, "ab", lambda a, b: a.interpolate(b, 0.3)),
        ("interpolate", 1.0, "ab", lambda a, b: a.interpolate(b, 1.0)),
        ("orthogonal", 1.0, "ab", lambda a, b: a.orthogonal_to(b)),
        ("unit", 1.0, "a", lambda a: a.unit()),
        ("negate", 1.0, "a", lambda a: -a),
        ("subtract", 1.0, ["two-sites", "two-more"], lambda a, b: a - b),
    ],
)
def test_arithmetic_is_the_library_s(comfy, folder, operation, amount, names, expected):
    def build(graph):
        a, b = [graph.load(name) for name in names] if len(names) > 1 else (graph.load(names[0]), None)
        return graph.combine(a, operation, amount, b)

    found, wanted = run_one(comfy, build), expected(*(VECTORS[name] for name in names))
    assert found.sites == wanted.sites
    for site in wanted.sites:
        assert torch.allclose(found.directions[site], wanted.directions[site], rtol=1e-5, atol=1e-6)
    assert found.scales.keys() == wanted.scales.keys()
    assert found.provenance == wanted.provenance


def test_a_chain_of_operations_with_a_save_in_its_middle(comfy, folder):
    graph = Vectors()
    middle = graph.save(graph.combine(graph.load("a"), "add", 0.5, graph.load("b")), "middle")
    end = graph.save(graph.combine(middle, "unit"), "end")
    outputs = comfy.run(graph)
    found = [load_vector(outputs[node[0]]["text"][0]).directions[SITE] for node in (middle, end)]
    wanted = A + 0.5 * VECTORS["b"]
    assert torch.allclose(found[0], wanted.directions[SITE], rtol=1e-5, atol=1e-6)
    assert torch.allclose(found[1], wanted.unit().directions[SITE], rtol=1e-5, atol=1e-6)


def test_a_name_that_is_taken_gets_a_number_and_its_file_stays(comfy, folder):
    paths = []
    for name in ("a", "b", "two-sites"):
        graph = Vectors()
        saved = graph.save(graph.load(name), "taken/v1.0", overwrite=False)
        paths.append(comfy.run(graph)[saved[0]]["text"][0])
    assert paths == [str(folder / "taken" / f"v1.0{end}.safetensors") for end in ("", "_00002", "_00003")]
    for path, name in zip(paths, ("a", "b", "two-sites"), strict=True):
        same(load_vector(path), VECTORS[name])
    same(run_one(comfy, lambda graph: graph.load("wide"), "taken/v1.0"), VECTORS["wide"])
    same(load_vector(paths[1]), VECTORS["b"])


def test_an_unchanged_graph_saves_nothing_again(comfy, folder):
    graph = Vectors()
    graph.save(graph.combine(graph.load("a"), "scale", 7.0), "once", overwrite=False)
    first = comfy.run(graph)
    before = files(folder)
    assert comfy.run(graph) == first
    assert files(folder) == before


def test_a_file_that_changed_is_loaded_anew(comfy, folder):
    save_dictionary(VECTORS["a"], folder / "changing.safetensors")
    same(run_one(comfy, lambda graph: graph.load("changing")), VECTORS["a"])
    run_one(comfy, lambda graph: graph.load("two-sites"), "changing")
    same(run_one(comfy, lambda graph: graph.load("changing")), VECTORS["two-sites"])


def about(comfy, kind, **inputs):
    graph = Graph()
    loaded = graph.add(kind, **inputs)
    text = graph.add("PreviewAny", source=[loaded[0], 1])
    return comfy.run(graph)[text[0]]["text"][0]


def test_a_vector_says_what_it_is(comfy, folder):
    text = about(comfy, LOAD, vector="a.safetensors")
    for word in ("steering vector", SITE, "fluxtionary-demo", "192", "mean difference", "pairs 12", "auroc 0.9"):
        assert word in text
    assert f"{SITE}, {OTHER_SITE}" in about(comfy, LOAD, vector="two-sites.safetensors")


def test_a_dictionary_says_what_it_is(comfy, folder):
    text = about(comfy, LOAD_DICTIONARY, dictionary="demo-flux.double.1.img.safetensors")
    for word in ("sparse autoencoder", SITE, "fluxtionary-demo", "1,536", "k 16"):
        assert word in text
    known = make_dictionary(SITE, 192)
    known.provenance = Provenance(metrics={"fvu": 0.123, "dead": 0.0456, "l0": 7.5})
    path = comfy.base / "models" / "flux_dictionaries" / "measured.safetensors"
    save_dictionary(known, path)
    text = about(comfy, LOAD_DICTIONARY, dictionary=path.name)
    path.unlink()
    assert "fvu 0.123, dead 0.0456, l0 7.5" in text


@pytest.mark.parametrize(
    ("names", "operation", "amount", "words"),
    [
        (["a"], "add", 1.0, "b: expected a second steering vector for add, found nothing connected"),
        (["a"], "orthogonal", 1.0, "b: expected a second steering vector for orthogonal"),
        (["a", "b"], "add", float("nan"), "amount: expected a finite number for add, found nan"),
        (["a"], "scale", float("nan"), "amount: expected a finite number for scale, found nan"),
        (["a", "b"], "add", 1000.0, "bigger than max of 100.*amount"),
        (["a"], "power", 1.0, "operation.*power"),
        (["a"], "scale", 0.0, "a, amount: scale leaves no steering vector: .*its length is 0"),
        (["a", "a"], "subtract", 1.0, "a, b, amount: subtract leaves no steering vector"),
        (["twice-a", "a"], "subtract", 2.0, "subtract leaves no steering vector"),
        (["a", "a"], "add", -1.0, "add leaves no steering vector"),
        (["a", "twice-a"], "interpolate", -1.0, "a, b, amount: interpolate leaves no steering vector"),
        (["a", "twice-a"], "orthogonal", 1.0, "a, b: orthogonal leaves no steering vector: .*parallel"),
        (["a", "wide"], "add", 1.0, r"b: expected a vector of the width of a \(192\), found width 256"),
        (["a", "elsewhere"], "add", 1.0, rf"b: .*sites of a \({SITE}\), found {OTHER_SITE}; they share none"),
        (
            ["two-sites", "a"],
            "add",
            1.0,
            rf"sites of a \({SITE}, {OTHER_SITE}\), found {SITE}; they share only {SITE}$",
        ),
    ],
)
def test_what_does_not_go_together_is_an_error_that_names_the_input(comfy, folder, names, operation, amount, words):
    graph = Vectors()
    a, *b = [graph.load(name) for name in names]
    graph.save(graph.combine(a, operation, amount, *b), "never")
    fails(comfy, graph, COMBINE, words)
    assert not (folder / "never.safetensors").exists()


def test_vectors_that_cancel_out_but_for_rounding_leave_nothing(comfy, folder):
    graph = Vectors()
    third = graph.combine(graph.load("a"), "scale", 0.3)
    graph.save(graph.combine(graph.load("a"), "subtract", 3.3333333333, third), "never")
    fails(comfy, graph, COMBINE, f"subtract leaves no steering vector: at {SITE} the two cancel out")


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "../out", "/tmp/out", "sub/../../out", "sub/./out", "a//b", "a/", "/", ".hidden"),
        *("a\\b", "C:out", "a\0b", "a\nb", "a?b", "a*", "~/out", "a.", "sub./a", "%USER%", "a" * 101),
    ],
)
def test_a_name_that_is_no_plain_one_is_refused_and_writes_nothing(comfy, folder, name):
    graph = Vectors()
    graph.save(graph.load("a"), name)
    before = {*files(folder.parent), (folder / "still-alive.safetensors").relative_to(folder.parent)}
    fails(comfy, graph, SAVE, "name: expected letters, digits.*, found '")
    assert files(folder.parent).keys() <= before  # `fails` writes still-alive


def test_names_that_people_use(comfy, folder):
    for name in ("größer", "red - blue", "v1.0", "a+b", "x.safetensors", "deep/er/still"):
        graph = Vectors()
        saved = graph.save(graph.load("a"), name, overwrite=False)
        path = folder / f"{name.removesuffix('.safetensors')}.safetensors"
        assert comfy.run(graph)[saved[0]]["text"] == [str(path)] and path.is_file()


def test_a_link_out_of_the_folder_is_not_followed(comfy, folder, tmp_path):
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    graph = Vectors()
    graph.save(graph.load("a"), "link/out")
    fails(comfy, graph, SAVE, "name: expected a place inside .*found a link that leads to")
    (folder / "link").unlink()
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_is_needed_is_an_error(comfy, folder):
    graph = Vectors()
    graph.save(graph.load("a"), "notes.txt/out")
    fails(comfy, graph, SAVE, "name: expected a place to write a file.*notes.txt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nowhere",
            "expected a file in models/flux_steering_vectors, found 'nowhere.safetensors', and .* others there",
        ),
        ("../flux_dictionaries/double", "expected a file in models/flux_steering_vectors"),
        ("damaged", "damaged.safetensors: expected a whole .safetensors file"),
        ("dictionary", "expected a steering vector, found a dictionary of kind sae: .*use Load Dictionary"),
    ],
)
def test_a_file_that_is_no_vector_is_refused(comfy, folder, name, words):
    graph = Vectors()
    graph.save(graph.load(name), "never")
    fails(comfy, graph, LOAD, words)


def test_load_dictionary_refuses_a_vector(comfy, folder):
    path = comfy.base / "models" / "flux_dictionaries" / "a-vector.safetensors"
    save_dictionary(A, path)
    graph = Graph()
    loaded = graph.add(LOAD_DICTIONARY, dictionary=path.name)
    graph.add("PreviewAny", source=[loaded[0], 1])
    fails(comfy, graph, LOAD_DICTIONARY, "expected a dictionary, found a steering vector: .*use Load Steering Vector")
    path.unlink()


def test_an_empty_folder_says_where_files_go(comfy, folder, tmp_path):
    for path in list(folder.iterdir()):
        path.rename(tmp_path / path.name)
    try:
        options = listed(comfy)
        graph = Vectors()
        graph.save(graph.add(LOAD, vector=options[0]), "never")
        with pytest.raises(NodeError, match="expected a file in models/flux_steering_vectors, found none there"):
            comfy.run(graph)
        assert options == ["no file in models/flux_steering_vectors yet"]
        assert "FluxtionarySteerWithFeature" in comfy.get("/object_info")
    finally:
        for path in list(tmp_path.iterdir()):
            path.rename(folder / path.name)
    same(run_one(comfy, lambda graph: graph.load("a"), "still-alive"), A)
