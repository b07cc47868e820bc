"""The example workflows, as graphs in API form: `make_workflows.py` lays them out and draws their pictures."""

from __future__ import annotations

from collections.abc import Callable

from comfy_server import Graph

DEMO = "demo-flux.double.1.img.safetensors"
RED = 1318
"""A feature of the demo's dictionary that makes objects red."""
OBJECT = 211
"""A feature that is active on the object that the demo Flux draws with these prompts."""
SIDE = 1165
"""A feature that is active on one side of a triangle."""
CONTRAST = {"start_percent": 0.0, "end_percent": 0.5, "seed": 0, "method": "mean difference", "scheduler": "simple"}


class Workflow(Graph):
    """A graph with titles for some of its nodes, and a note on top."""

    def __init__(self, note: str, runs: bool = True):
        super().__init__()
        self.note, self.runs = note, runs
        self.titles: dict[str, str] = {}

    @property
    def graph(self) -> Graph:
        return self

    def put(self, title: str, class_type: str, output: int = 0, /, **inputs) -> list:
        """A node with a title of its own."""
        made = self.add(class_type, output, **inputs)
        self.titles[made[0]] = title
        return made

    def sample(self, title: str, model: list, positive: list, negative: list, latent: list, **more) -> list:
        settings = {"seed": 4, "steps": 20, "cfg": 1.0, "sampler_name": "lcm", "scheduler": "simple", "denoise": 1.0}
        settings |= more
        inputs = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
        return self.put(title, "KSampler", 0, **inputs, **settings)

    def compare(self, steered: list, positive: list, negative: list, latent: list, **more) -> None:
        """The same picture twice: plain, and with a steered model."""
        for title, name, model in (("Plain", "plain", self.model), ("Steered", "steered", steered)):
            drawn = self.sample(title, model, positive, negative, latent, **more)
            self.put(title, "SaveImage", 0, images=self.picture(drawn), filename_prefix=name)

    def show(self, inspected: list, image: list, by: str) -> None:
        """The features of an inspected picture, as a table and as a grid."""
        seen = {"latent": [inspected[0], 0], "capture": [inspected[0], 1]}
        read = self.add("FluxtionaryReadFeatures", **seen, by=by, count=12)
        self.put("Features", "PreviewAny", 0, source=[read[0], 2])
        grid = self.add("FluxtionaryFeatureGrid", **seen, image=image, by=by, count=12, columns=4)
        self.put("The strongest features", "SaveImage", 0, images=grid, filename_prefix="features")


class Demo(Workflow):
    """A workflow on the demo Flux."""

    def __init__(self, note: str):
        super().__init__(note)
        loader = self.add("FluxtionaryLoadDemoFlux", size="base")
        self.model, self.clip, self.vae = ([loader[0], output] for output in range(3))

    def text(self, caption: str, title: str = "What the picture shows") -> list:
        return self.put(title, "CLIPTextEncode", 0, text=caption, clip=self.clip)

    def empty(self) -> list:
        return self.add("EmptySD3LatentImage", width=128, height=128, batch_size=1)

    def picture(self, latent: list) -> list:
        return self.add("VAEDecode", samples=latent, vae=self.vae)


def steer_with_feature() -> Workflow:
    made = Demo(
        "The same prompt and the same noise, twice: on one side Flux is left alone, on the other a feature of its own "
        "thoughts is added while it draws. Change *strength*, *feature* or *end_percent* and run again. "
        "Nothing to download: the demo Flux ships with Fluxtionary."
    )
    shows, negative = made.text("a large circle at the center on a white background"), made.text("", "Negative (empty)")
    latent = made.empty()
    dictionary = made.add("FluxtionaryLoadDictionary", dictionary=DEMO)
    steered = made.add(
        "FluxtionarySteerWithFeature",
        **{"model": made.model, "dictionary": dictionary, "feature": RED, "strength": 0.4},
        **{"start_percent": 0.0, "end_percent": 0.6, "rows": "cond"},
    )
    made.compare(steered, shows, negative, latent)
    return made


def inspect_and_heat_map() -> Workflow:
    made = Demo(
        "What does Flux see in a picture? *Inspect Picture* noises it, lets Flux look once, and stops after the "
        "dictionary's place. *Feature Grid* shows the strongest features, *Feature Heat Map* one of them. Here the "
        "picture is drawn by the demo Flux; take *Load Image* and *VAE Encode* for your own."
    )
    shows, negative = made.text("a small green triangle at the left on a black background"), made.text("", "Negative")
    drawn = made.sample("Draws the picture", made.model, shows, negative, made.empty())
    image = made.picture(drawn)
    dictionary = made.add("FluxtionaryLoadDictionary", dictionary=DEMO)
    inspected = made.add(
        "FluxtionaryInspectPicture",
        **{"model": made.model, "dictionary": dictionary, "latent": drawn, "conditioning": shows},
        **{"noise_percent": 0.3, "seed": 0},
    )
    made.show(inspected, image, "peak")
    heat = made.add(
        "FluxtionaryFeatureHeatMap",
        **{"latent": [inspected[0], 0], "capture": [inspected[0], 1], "feature": SIDE, "image": image},
        **{"steps": "average", "threshold": 0.3},
    )
    made.put("One of them", "SaveImage", 0, images=heat, filename_prefix="heat-map")
    return made


def contrast_and_steer() -> Workflow:
    made = Demo(
        "A steering vector from two prompts: what Flux thinks at *positive* minus what it thinks at *negative*. "
        "Steer With Vector then adds it to a prompt that says nothing about it. The vector can be kept with "
        "Save Steering Vector."
    )
    positive = made.text("a yellow circle on a white background", "Positive: what to add")
    other = made.text("a blue circle on a white background", "Negative: what to take away")
    shows, negative = made.text("a large square at the center on a white background"), made.text("", "Negative (empty)")
    latent = made.empty()
    vector = made.add(
        "FluxtionaryContrastPrompts",
        **{"model": made.model, "positive": positive, "negative": other, "latent": latent},
        **{"sites": "double.1.img", "seeds": 4, "steps": 4, **CONTRAST},
    )
    steered = made.add(
        "FluxtionarySteerWithVector",
        **{"model": made.model, "vector": vector, "strength": 1.0},
        **{"start_percent": 0.0, "end_percent": 1.0, "rows": "cond"},
    )
    made.compare(steered, shows, negative, latent)
    return made


def mask_from_feature() -> Workflow:
    made = Demo(
        "One feature says where, another says what: the heat map of a feature that is active on the object becomes "
        "the mask of a second run, which steers there and nowhere else."
    )
    shows, negative = made.text("a large circle at the center on a white background"), made.text("", "Negative (empty)")
    latent = made.empty()
    dictionary = made.add("FluxtionaryLoadDictionary", dictionary=DEMO)
    tapped = made.add("FluxtionaryTap", model=made.model, dictionary=dictionary)
    drawn = made.sample("First run, watched", [tapped[0], 0], shows, negative, latent)
    image = made.picture(drawn)
    heat = made.add(
        "FluxtionaryFeatureHeatMap",
        **{"latent": drawn, "capture": [tapped[0], 1], "feature": OBJECT, "image": image},
        **{"steps": "average", "threshold": 0.3},
    )
    steered = made.add(
        "FluxtionarySteerWithFeature",
        **{"model": made.model, "dictionary": dictionary, "feature": RED, "strength": 0.8},
        **{"start_percent": 0.0, "end_percent": 0.6, "rows": "cond", "mask": [heat[0], 1]},
    )
    again = made.sample("Second run, steered", steered, shows, negative, latent)
    for title, name, shown in (
        ("First run", "first", image),
        ("Where the feature is active", "heat", heat),
        ("Second run", "second", made.picture(again)),
    ):
        made.put(title, "SaveImage", 0, images=shown, filename_prefix=name)
    return made


def record_activations() -> Workflow:
    made = Demo(
        "Writes what Flux thinks into *output/fluxtionary/my-captures*, a folder for each run: queue as many as you "
        "like, with other seeds and prompts. Then train a dictionary on it: "
        "`fluxtionary train-sae --shards output/fluxtionary/my-captures --site double.1.img --out mine.safetensors`"
    )
    shows, negative = made.text("a large circle at the center on a white background"), made.text("", "Negative (empty)")
    recorded = made.add("FluxtionaryRecordActivations", model=made.model, sites="double.1.img", folder="my-captures")
    drawn = made.sample("Recorded run", recorded, shows, negative, made.empty())
    made.put("The picture", "SaveImage", 0, images=made.picture(drawn), filename_prefix="recorded")
    return made


class Real(Workflow):
    """A workflow on FLUX.1 with ComfyUI's own loaders."""

    def __init__(self, note: str, model: str):
        super().__init__(note, runs=False)
        self.model = self.put("FLUX.1 (fp8 and GGUF too)", "UNETLoader", 0, unet_name=model, weight_dtype="default")
        self.clip = self.add(
            "DualCLIPLoader",
            **{"clip_name1": "t5xxl_fp8_e4m3fn.safetensors", "clip_name2": "clip_l.safetensors"},
            **{"type": "flux", "device": "default"},
        )
        self.vae = self.add("VAELoader", vae_name="ae.safetensors")

    text, picture = Demo.text, Demo.picture

    def empty(self, pixels: int = 1024) -> list:
        return self.add("EmptySD3LatentImage", width=pixels, height=pixels, batch_size=1)


def flux_contrast_and_steer() -> Workflow:
    made = Real(
        "Steer FLUX.1 schnell with a vector made on the spot: nothing to download but Flux itself. Pairs of prompts "
        "that differ in one thing only work best; add more with Conditioning lists. Too strong breaks the picture: "
        "try strengths from 0.3 to 1.5. For dev: 20 steps, and FluxGuidance behind the prompts.",
        "flux1-schnell.safetensors",
    )
    positive = made.text("an oil painting of a village by the sea, thick brush strokes", "Positive: what to add")
    other = made.text("a photo of a village by the sea", "Negative: what to take away")
    shows, negative = made.text("a lighthouse on a cliff at dusk"), made.text("", "Negative (empty)")
    vector = made.add(
        "FluxtionaryContrastPrompts",
        **{"model": made.model, "positive": positive, "negative": other, "latent": made.empty(512)},
        **{"sites": "double.9.img", "seeds": 4, "steps": 4, **CONTRAST},
    )
    steered = made.add(
        "FluxtionarySteerWithVector",
        **{"model": made.model, "vector": vector, "strength": 0.8},
        **{"start_percent": 0.0, "end_percent": 1.0, "rows": "cond"},
    )
    latent = made.empty()
    made.compare(steered, shows, negative, latent, steps=4, sampler_name="euler")
    return made


def flux_inspect_with_flux1_saes() -> Workflow:
    made = Real(
        "Which features does FLUX.1 schnell use for a prompt? The paper's dictionaries, in three commands: "
        '`pip install "fluxtionary[orbax]"`, '
        "`hf download nev/flux1-saes --include 'sae_double_l18_img/30000/default/*' --local-dir flux1-saes`, "
        "`fluxtionary import flux1-saes/sae_double_l18_img/30000/default --site double.18.img --out "
        "ComfyUI/models/flux_dictionaries/flux1-saes.double.18.img.safetensors`. They were trained on one step of pure "
        "noise at 256x256, so that is what is looked at here (*noise_percent* 1); elsewhere they fit worse, and Read "
        "Features says by how much.",
        "flux1-schnell.safetensors",
    )
    shows, negative = made.text("a lighthouse on a cliff at dusk"), made.text("", "Negative (empty)")
    latent = made.empty(256)
    drawn = made.sample("Draws the picture", made.model, shows, negative, latent, steps=4, sampler_name="euler")
    image = made.picture(drawn)
    dictionary = made.add("FluxtionaryLoadDictionary", dictionary="flux1-saes.double.18.img.safetensors")
    inspected = made.add(
        "FluxtionaryInspectPicture",
        **{"model": made.model, "dictionary": dictionary, "latent": drawn, "conditioning": shows},
        **{"noise_percent": 1.0, "seed": 4},
    )
    made.show(inspected, image, "activation")
    return made


WORKFLOWS: dict[str, Callable[[], Workflow]] = {
    make.__name__: make
    for make in (
        steer_with_feature,
        inspect_and_heat_map,
        contrast_and_steer,
        mask_from_feature,
        record_activations,
        flux_contrast_and_steer,
        flux_inspect_with_flux1_saes,
    )
}
