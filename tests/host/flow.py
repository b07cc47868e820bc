"""Workflows of the tests, built a node at a time."""

from __future__ import annotations

from .comfy_server import Graph

DEMO = "demo-flux.double.1.img.safetensors"
CAPTION = "a large circle at the center on a white background"


class Flow(Graph):
    """A demo Flux, and what is usually done with it."""

    def __init__(self, size: str = "base"):
        super().__init__()
        loader = self.add("FluxtionaryLoadDemoFlux", size=size)
        self.model, self.clip, self.vae = ([loader[0], output] for output in range(3))

    def text(self, caption: str) -> list:
        return self.add("CLIPTextEncode", clip=self.clip, text=caption)

    def empty(self, batch: int = 1, width: int = 128, height: int = 128) -> list:
        return self.add("EmptySD3LatentImage", width=width, height=height, batch_size=batch)

    def steer(self, model: list, feature: int = 3, strength: float = 1.0, dictionary: str = DEMO, **options) -> list:
        loaded = self.add("FluxtionaryLoadDictionary", dictionary=dictionary)
        settings = {"start_percent": 0.0, "end_percent": 1.0, "rows": "cond"} | options
        return self.add(
            "FluxtionarySteerWithFeature",
            model=model,
            dictionary=loaded,
            feature=feature,
            strength=strength,
            **settings,
        )

    def watch(self, model: list, name: str, stage: str = "single_block", block: int = 0, shift: float = 0.0) -> list:
        return self.add("NeighbourWatch", model=model, stage=stage, block=block, shift=shift, name=name)

    def sample(self, model: list, latent: list | None = None, **options) -> list:
        settings = {
            "seed": 1,
            "steps": 4,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "denoise": 1.0,
            "positive": options.pop("positive", None) or self.text(options.pop("caption", CAPTION)),
            "negative": options.pop("negative", None) or self.text(""),
        }
        return self.add("KSampler", model=model, latent_image=latent or self.empty(), **(settings | options))

    def stage(self, model: list, latent: list, start: int, end: int, steps: int = 8, **options) -> list:
        """A KSamplerAdvanced that does steps `start` to `end`."""
        settings = {
            "add_noise": "enable" if start == 0 else "disable",
            "noise_seed": 1,
            "steps": steps,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "positive": self.text(CAPTION),
            "negative": self.text(""),
            "start_at_step": start,
            "end_at_step": end,
            "return_with_leftover_noise": "enable" if end < steps else "disable",
        }
        return self.add("KSamplerAdvanced", model=model, latent_image=latent, **(settings | options))

    def custom(self, model: list, sigmas: str, batch: int = 1, seed: int = 1, caption: str = CAPTION) -> list:
        """SamplerCustomAdvanced with sigmas as they are written."""
        return self.add(
            "SamplerCustomAdvanced",
            noise=self.add("RandomNoise", noise_seed=seed),
            guider=self.add("BasicGuider", model=model, conditioning=self.text(caption)),
            sampler=self.add("KSamplerSelect", sampler_name="euler"),
            sigmas=self.add("ManualSigmas", sigmas=sigmas),
            latent_image=self.empty(batch),
        )

    def save(self, latent: list, name: str = "latent") -> list:
        return self.add("SaveLatent", samples=latent, filename_prefix=name)

    def mask(self, file: str) -> list:
        return self.add("LoadImageMask", image=file, channel="red")
