"""A vector that Contrast Prompts makes in ComfyUI and one that `fluxtionary contrast` makes offline are the same."""

import pytest

from fluxtionary.dictionaries import save_dictionary
from fluxtionary.residual import Site
from fluxtionary.training.contrast import contrast
from fluxtionary.training.first_steps import Size, Watching
from fluxtionary.training.prompt_pairs import Pair, checked

from .flow import Flow
from .test_contrast import BLUE, RED, contrasted
from .watching import latents

SITES = ("double.0.img", "double.0.txt", "double.1.img", "double.1.txt", "single.1.img")
PAIRS = checked(map(Pair, RED, BLUE))


def offline(pipeline, method="mean difference", size=None, sites=SITES, **options):
    return contrast(
        pipeline, PAIRS, [Site.parse(site) for site in sites], method, Watching(**options), size, progress=False
    )


@pytest.mark.parametrize(
    ("method", "there", "here"),
    [
        ("mean difference", {}, {}),
        ("mean difference", {"seed": 5, "seeds": 2}, {"seed": 5, "seeds": 2}),
        # a schedule whose steps ComfyUI rounds
        (
            "pca",
            {"seed": 9, "steps": 7, "start_percent": 0.3, "end_percent": 0.8},
            {"seed": 9, "steps": 7, "start": 0.3, "end": 0.8},
        ),
        (
            "mean difference",
            {"latent": lambda flow: flow.empty(1, 144, 112), "end_percent": 1.0},
            {"size": Size(112, 144, 4), "end": 1.0},
        ),
    ],
)
def test_both_make_the_same_vector(comfy, demo_flux, method, there, here):
    node, _ = contrasted(comfy, sites=", ".join(SITES), method=method, **there)
    found = offline(demo_flux, method, **here)
    vector = found.vector(list(found.directions))
    worst = min(vector.cosine(node).values(), default=0)
    key = "contrast in both hosts, least cosine"
    comfy.figures[key] = min(comfy.figures.get(key, 1.0), worst)
    assert set(node.sites) == set(vector.sites) == set(SITES)
    assert worst > 0.9999
    for site in SITES:
        assert float(vector.directions[site].norm() / node.directions[site].norm()) == pytest.approx(1, abs=1e-3)
        for sigma in node.provenance.capture["sigmas"]:
            assert vector.scales[site].at(sigma) == pytest.approx(node.scales[site].at(sigma), rel=1e-3)
        ours, theirs = vector.provenance.metrics[site], node.provenance.metrics[site]
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-3)
    assert vector.provenance.capture["sigmas"] == pytest.approx(node.provenance.capture["sigmas"], abs=1e-6)


def test_one_made_offline_loads_in_comfyui_and_steers_as_the_node_s_own(comfy, demo_flux):
    found = offline(demo_flux, sites=("double.1.img",))
    folder = comfy.base / "models" / "flux_steering_vectors"
    save_dictionary(found.vector(), folder / "made offline.safetensors")

    def steer(flow, vector):
        return flow.add(
            "FluxtionarySteerWithVector",
            **{"model": flow.model, "vector": vector, "strength": 0.6, "rows": "cond"},
            **{"start_percent": 0.0, "end_percent": 0.6},
        )

    def from_file(flow):
        return steer(flow, flow.add("FluxtionaryLoadSteeringVector", vector="made offline.safetensors"))

    def from_node(flow):
        node, _ = contrasted(comfy, sites="double.1.img")
        save_dictionary(node, folder / "made by the node.safetensors")
        return steer(flow, flow.add("FluxtionaryLoadSteeringVector", vector="made by the node.safetensors"))

    plain, ours, theirs = (latents(comfy, build) for build in (lambda flow: flow.model, from_file, from_node))
    assert float((ours - theirs).norm()) < 1e-3 * float((ours - plain).norm())
    assert float((ours - plain).norm()) > 0.05 * float(plain.norm())


def test_what_the_file_says_is_shown_by_the_node(comfy, demo_flux):
    found = offline(demo_flux, sites=("double.1.img", "double.0.txt"))
    path = comfy.base / "models" / "flux_steering_vectors" / "figures.safetensors"
    save_dictionary(found.vector(), path)
    flow = Flow()
    loaded = flow.add("FluxtionaryLoadSteeringVector", vector="figures.safetensors")
    shown = flow.add("PreviewAny", source=[loaded[0], 1])
    about = comfy.run(flow)[shown[0]]["text"][0]
    assert "steering vector" in about and str(found.best) in about
    for word in ("auroc", "effect", "split_half_cosine", "a red circle on a white background"):
        assert word in about
