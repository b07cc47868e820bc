import pytest
import torch

from fluxtionary.evaluation.kept_pictures import KeptPictures
from fluxtionary.evaluation.random_weights import beside, image_tokens, random_transformer, shown_inputs
from fluxtionary.residual import Plan, Site, Tap
from fluxtionary.training.capture import Capture, PipelineStream
from fluxtionary.training.drawn import DrawnPictures
from fluxtionary.training.sampling import Sampling

SITE = Site.parse("double.1.img")
SAMPLING = Sampling(steps=3, batch=2)
PROMPTS, SEEDS = ["a red circle", "a blue ring", "a small square"], [1, 2, 3]


def stream(pipeline, **options):
    return PipelineStream(pipeline, PROMPTS, SEEDS, [SITE], Capture(**options), SAMPLING)


def test_a_model_with_the_same_weights_sees_the_same(random_flux):
    twin = random_transformer(random_flux.transformer, 0)
    twin.load_state_dict(random_flux.transformer.state_dict())
    plan = Plan([Tap(SITE)])
    count = 0
    for number, (batch, (run,)) in enumerate(
        beside(stream(random_flux).batches(), random_flux.transformer, [twin], plan)
    ):
        own, other = batch[SITE], image_tokens(run, SITE, 2 * number)
        for one, two in zip(own, other, strict=True):
            assert torch.allclose(one.float(), two.float(), atol=1e-5)
        count += len(own.x)
    assert count == 3 * 3 * 64


def test_random_weights_see_something_else_and_change_nothing(random_flux):
    plain = [batch[SITE].x for batch in stream(random_flux).batches()]
    state = torch.random.get_rng_state()
    others = [random_transformer(random_flux.transformer, seed) for seed in (1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = list(beside(stream(random_flux).batches(), random_flux.transformer, others, Plan([Tap(SITE)])))
    assert all(torch.equal(batch[SITE].x, x) for (batch, _), x in zip(pairs, plain, strict=True))
    first, second = (image_tokens(run, SITE, 0).x for run in pairs[0][1])
    assert not torch.allclose(first, second, atol=0.01) and not torch.allclose(first, plain[0], atol=0.01)
    again = random_transformer(random_flux.transformer, 1)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, others[0].state_dict()[name])


def test_no_hook_stays_after_an_error(random_flux):
    other = random_transformer(random_flux.transformer, 1)
    with pytest.raises(RuntimeError, match="stop"), shown_inputs(random_flux.transformer, other, Plan([Tap(SITE)])):
        raise RuntimeError("stop")
    assert not random_flux.transformer._forward_pre_hooks and not other._forward_pre_hooks


def test_a_share_of_the_tokens_is_the_same_share_each_time(random_flux):
    other = random_transformer(random_flux.transformer, 1)
    plan = Plan([Tap(SITE)])
    ((_, (run,)), _) = beside(stream(random_flux).batches(), random_flux.transformer, [other], plan)
    some, again = image_tokens(run, SITE, 0, 0.5), image_tokens(run, SITE, 0, 0.5)
    assert torch.equal(some.x, again.x)
    assert 0.4 < len(some.x) / (2 * 3 * 64) < 0.6


def test_windows_decide_which_steps_the_others_see_and_kept_pictures_are_a_stream(random_flux):
    drawn = DrawnPictures(random_flux, PROMPTS, SEEDS, [SITE, Site.parse("double.1.img.mlp")], SAMPLING, moments=1)
    calls = []
    other = random_transformer(random_flux.transformer, 1)
    other.register_forward_pre_hook(lambda *_: calls.append(1))
    plan = Plan([item for item in drawn.plan if item.site == SITE])
    batches, shadows = [], []
    for batch, (run,) in beside(drawn.batches(), random_flux.transformer, [other], plan):
        batches.append(batch)
        shadows.append(batch._replace(tokens={SITE: image_tokens(run, SITE, batch.first)}))
    assert len(calls) == 2  # one step of three, two batches
    kept = KeptPictures(drawn, batches, [SITE])
    assert len(kept) == 2 and kept.sites == (SITE,) and kept.sigmas == drawn.sigmas and kept.size == (128, 128)
    assert [set(batch.tokens) for batch in kept.batches(1)] == [{SITE}]
    random = KeptPictures(drawn, shadows, [SITE], {"weights": "random"})
    one, two = next(kept.batches()).tokens[SITE], next(random.batches()).tokens[SITE]
    assert random.header["weights"] == "random" and "weights" not in kept.header
    for name in ("sigma", "position", "picture"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert not torch.allclose(one.x, two.x, atol=0.01)
