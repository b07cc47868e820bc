from types import SimpleNamespace

import pytest
import torch

from fluxtionary.residual import Plan, Site, Tap
from fluxtionary.residual.diffusers_host import attach
from fluxtionary.training.capture import Capture, PipelineStream, capture, collect
from fluxtionary.training.embeddings import embed, embedded_batches
from fluxtionary.training.models import ModelError
from fluxtionary.training.sampling import Sampling, draw_pictures, run_batches, text_length

PROMPTS = ["a red circle", "small, blue, ring", "", "a cross on a tan background", "a ring"]
SAMPLING = Sampling(steps=2, batch=2)


def test_image_tokens_are_those_of_the_stream(random_flux, draw):
    site = Site.parse("double.1.img")
    tokens = collect(capture(random_flux, PROMPTS, [1, 2, 3, 4, 5], site, SAMPLING))
    assert tokens.x.shape == (5 * 2 * 64, 128)
    tap = Tap(site)
    with attach(random_flux, Plan([tap])) as run:
        draw(random_flux, PROMPTS[4], seed=5)
    own = tokens.picture == 4
    for record in run.records[tap]:
        at = own & (tokens.sigma == record.moment.sigma)
        assert torch.equal(tokens.position[at], torch.arange(64))
        assert torch.allclose(tokens.x[at], record.activations[0], atol=1e-4)


def test_text_tokens_leave_out_padding(random_flux):
    tokens = collect(capture(random_flux, PROMPTS, [0] * 5, Site.parse("double.0.txt"), SAMPLING))
    lengths = [len(prompt.replace(",", "").split()) + 1 for prompt in PROMPTS]  # its words and the end mark
    assert torch.bincount(tokens.picture).tolist() == [2 * length for length in lengths]


def test_collecting_stops_at_the_limit(random_flux):
    stream = capture(random_flux, PROMPTS, [0] * 5, Site.parse("double.1.img"), SAMPLING)
    assert len(collect(stream, 100).x) == 100


def stream_of(pipeline, sites=("double.1.img",), prompts=PROMPTS, sampling=SAMPLING, **options):
    seeds = [10 + i for i in range(len(prompts))]
    return PipelineStream(pipeline, prompts, seeds, [Site.parse(s) for s in sites], Capture(**options), sampling, "x")


def test_the_header_tells_prompts_apart(random_flux):
    first, second = (stream_of(random_flux, prompts=[prompt]).header for prompt in ("a ring", "a cross"))
    assert first["prompts_sha256"] != second["prompts_sha256"]
    assert (first["steps"], first["max_sequence_length"], first["sigmas"]) == (2, 16, "every step of sampling")


def counted(pipeline):
    """How often each block of the transformer ran."""
    transformer, counts = pipeline.transformer, {}
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    for number, block in enumerate(blocks):
        counts[number] = 0

        def count(module, args, number=number):
            counts[number] += 1

        counts[f"handle {number}"] = block.register_forward_pre_hook(count)
    return counts


@pytest.mark.parametrize(
    ("moments", "runs"),
    [("trajectory", [2, 2, 1, 1]), ("noise", [1, 1, 0, 0]), ("noised", [2 + 3, 2 + 3, 2, 2])],
)
def test_blocks_after_the_last_site_are_not_computed(random_flux, moments, runs):
    """A trajectory of two steps needs the whole of the first; noised pictures are drawn first, then passed thrice."""
    counts = counted(random_flux)
    stream = stream_of(random_flux, ("double.0.img", "double.1.txt"), PROMPTS[:2], moments=moments, sigmas=3)
    (batch,) = stream.batches()
    for number in range(4):
        counts[f"handle {number}"].remove()
    assert [counts[number] for number in range(4)] == runs
    sigmas = {"trajectory": 2, "noise": 1, "noised": 3}[moments]
    tokens = batch[Site.parse("double.0.img")]
    assert len(tokens.x) == 2 * 64 * sigmas
    of_each = [tokens.sigma[tokens.picture == picture].unique() for picture in (0, 1)]
    assert [len(found) for found in of_each] == [sigmas, sigmas]
    assert torch.equal(*of_each) == (moments != "noised")  # there each picture has sigmas of its own
    assert tokens.sigma.max() == 1.0 or moments == "noised"


def test_pure_noise_is_the_first_step_of_a_trajectory(random_flux):
    site = Site.parse("single.0.img")
    whole = next(iter(stream_of(random_flux, ("single.0.img",)).batches()))[site]
    noise = next(iter(stream_of(random_flux, ("single.0.img",), moments="noise").batches()))[site]
    assert torch.equal(noise.x, whole.rows(whole.sigma == 1).x)


def test_noised_pictures_lie_between_picture_and_noise(random_flux, monkeypatch):
    """The transformer is given `(1 - sigma) * clean + sigma * noise`, with the sigma that is noted."""
    given = []
    handle = random_flux.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: given.append((kwargs["hidden_states"], kwargs["timestep"])), with_kwargs=True
    )
    stream = stream_of(random_flux, prompts=PROMPTS[:2], moments="noised", sigmas=4)
    (batch,) = stream.batches()
    handle.remove()
    clean = stream._draw(embed(random_flux, PROMPTS[:2]), slice(0, 2))
    tokens = batch[Site.parse("double.1.img")]
    for mixed, sigmas in given[2:]:
        for picture, sigma in enumerate(sigmas):
            noise = (mixed[picture] - (1 - sigma) * clean[picture]) / sigma
            assert float(noise.std()) == pytest.approx(1, abs=0.05) and abs(float(noise.mean())) < 0.06
            assert float(sigma) in tokens.sigma[tokens.picture == picture].tolist()


def test_pictures_of_one_s_own_are_noised(random_flux, tmp_path):
    from PIL import Image

    for i, color in enumerate(["red", "blue", "white"]):
        Image.new("RGB", (200, 150), color).save(tmp_path / f"{i}.png")
    stream = stream_of(random_flux, prompts=PROMPTS[:3], moments="noised", images=tmp_path)
    tokens = [batch[Site.parse("double.1.img")] for batch in stream.batches()]
    assert [len(part.x) for part in tokens] == [2 * 64 * 4, 64 * 4]
    with pytest.raises(ModelError, match=r"picture for each of 5 prompts, found 3"):
        stream_of(random_flux, moments="noised", images=tmp_path)
    with pytest.raises(ModelError, match="images are for --moments noised"):
        Capture(images=tmp_path)


def test_any_batch_can_be_asked_for_and_is_always_the_same(random_flux):
    site = Site.parse("double.1.img")
    options = {"share": 0.4, "moments": "noise"}
    whole = [batch[site] for batch in stream_of(random_flux, **options).batches()]
    assert len(whole) == 3
    for start, step in ((1, 1), (0, 2), (2, 5)):
        some = [batch[site] for batch in stream_of(random_flux, **options).batches(start, step)]
        for one, other in zip(some, whole[start::step], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    share = sum(len(tokens.x) for tokens in whole) / (5 * 64)
    assert share == pytest.approx(0.4, abs=0.1)
    assert torch.cat([tokens.picture for tokens in whole]).unique().tolist() == [0, 1, 2, 3, 4]


def test_several_sites_in_one_pass_are_those_of_one_each(random_flux):
    sites = ("double.0.txt", "double.1.img", "single.1.img.update", "double.0.img.mlp")
    together = next(iter(stream_of(random_flux, sites).batches()))
    for site in sites:
        alone = next(iter(stream_of(random_flux, (site,)).batches()))[Site.parse(site)]
        assert torch.equal(together[Site.parse(site)].x, alone.x)


def test_a_prompt_s_embedding_is_computed_once(random_flux, monkeypatch):
    asked = []
    original = random_flux.encode_prompt
    monkeypatch.setattr(random_flux, "encode_prompt", lambda *a, **o: asked.append(a[0]) or original(*a, **o))
    batches = [["a ring", "a ring", "a cross"], ["a cross"], ["a red circle"]]
    found = list(embedded_batches(random_flux, batches))
    assert asked == [["a ring", "a cross"], ["a cross"], ["a red circle"]]
    for prompts, one in zip(batches, found, strict=True):
        expected, pooled, _ = original(prompts, None, max_sequence_length=16)
        assert torch.allclose(one.prompts, expected, atol=1e-5) and torch.allclose(one.pooled, pooled, atol=1e-5)


def test_no_embedding_is_computed_before_it_is_asked_for(random_flux, monkeypatch):
    asked = []
    original = random_flux.encode_prompt
    monkeypatch.setattr(random_flux, "encode_prompt", lambda *a, **o: asked.append(a[0]) or original(*a, **o))
    next(embedded_batches(random_flux, [["a ring"], ["a cross"]]))
    assert asked == [["a ring"]]


@pytest.mark.parametrize(("memory", "together"), [(1, 1), (2**30, 3)])
def test_encoders_leave_a_device_of_its_own_to_the_transformer(random_flux, memory, together):
    """As many batches as memory holds are embedded, and the encoders go, before the first of them is used."""
    events = []

    class Encoder:
        def to(self, device):
            events.append(str(device))
            return self

    def encode(*arguments, **options):
        events.append("embed")
        return random_flux.encode_prompt(*arguments, **options)

    encoders = {"text_encoder": Encoder(), "text_encoder_2": Encoder()}
    transformer = SimpleNamespace(device=torch.device("meta"))
    pipeline = SimpleNamespace(
        transformer=transformer, tokenizer_2=random_flux.tokenizer_2, encode_prompt=encode, **encoders
    )
    for found in embedded_batches(pipeline, [["a ring"], ["a cross"], ["a red circle"]], memory, length=16):
        assert pipeline.text_encoder is pipeline.text_encoder_2 is None
        events.append(tuple(found.prompts.shape[:2]))
    assert pipeline.text_encoder is encoders["text_encoder"] and pipeline.text_encoder_2 is encoders["text_encoder_2"]
    round_ = ["embed"] * together + ["cpu"] * 2 + [(1, 16)] * together + ["meta"] * 2
    assert events == round_ * (3 // together)


def test_a_stopped_capture_leaves_no_hook(random_flux, draw):
    before = draw(random_flux)
    list(stream_of(random_flux, moments="noise").batches())
    assert torch.equal(draw(random_flux), before)


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.5}, {"sigmas": 0}])
def test_captures_that_cannot_be_are_refused(options):
    with pytest.raises(ModelError, match="share|sigmas"):
        Capture(**options)


def test_pictures_depend_on_their_own_seed_alone(random_flux):
    together = draw_pictures(random_flux, PROMPTS[:3], [1, 2, 3], Sampling(steps=2, batch=3))
    alone = draw_pictures(random_flux, PROMPTS[1:2], [2], Sampling(steps=2, batch=1))
    assert abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1
    assert together.shape == (3, 128, 128, 3)


def test_every_prompt_needs_a_seed(random_flux):
    with pytest.raises(ValueError, match="5 captions and 1 seeds"):
        list(run_batches(random_flux, PROMPTS, [1], SAMPLING))


def test_the_text_length_is_the_models_own(random_flux):
    assert text_length(random_flux) == 16


def test_other_pictures_of_one_s_own_are_another_capture(random_flux, tmp_path):
    from PIL import Image

    headers = []
    for color in ("red", "red", "blue"):
        Image.new("RGB", (64, 64), color).save(tmp_path / "0.png")
        headers.append(stream_of(random_flux, prompts=PROMPTS[:1], moments="noised", images=tmp_path).header)
    assert headers[0] == headers[1] != headers[2]
