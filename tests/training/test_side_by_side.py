"""Several runs of one model at once: what they give, what they share, and what they leave."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from fluxtionary.residual import Add, Plan, Site
from fluxtionary.training import side_by_side as module
from fluxtionary.training.sampling import Sampling, draw_pictures
from fluxtionary.training.side_by_side import lanes, side_by_side


@pytest.fixture
def two():
    """Two threads, also where the tests have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def pipeline(size=4):
    return SimpleNamespace(transformer=torch.nn.Linear(size, size), scheduler=SimpleNamespace(step=0))


def test_answers_come_in_order_from_runs_of_their_own(two):
    own = pipeline()
    both = threading.Barrier(2, timeout=60)

    def work(copy, job):
        if job < 2:
            both.wait()  # only two runs at a time get past
        copy.scheduler.step += 1
        assert copy is not own and copy.transformer is not own.transformer
        assert copy.transformer.weight is own.transformer.weight
        return copy.scheduler, 10 * job

    found = side_by_side(own, work, range(7))
    assert [answer for _, answer in found] == [0, 10, 20, 30, 40, 50, 60]
    schedulers = {id(one): one for one, _ in found}.values()
    assert len(schedulers) == 2 and sum(one.step for one in schedulers) == 7
    assert own.scheduler.step == 0


def test_an_error_of_one_run_comes_out_and_the_others_end(two):
    begun = []

    def work(copy, job):
        begun.append(job)
        time.sleep(0.05)
        raise ValueError(f"job {job}")

    before = threading.active_count()
    with pytest.raises(ValueError, match="job 0"):
        side_by_side(pipeline(), work, range(50))
    assert threading.active_count() == before and len(begun) < 50


def test_a_run_that_nobody_waits_for_ends_with_its_next_step(two):
    ended, both = [], threading.Barrier(2, timeout=60)

    def work(copy, job):
        both.wait()
        if job == 0:
            raise KeyboardInterrupt
        for step in range(10_000):
            time.sleep(0.01)
            try:
                copy.transformer(torch.zeros(1, 4))
            except Exception:
                ended.append(step)
                raise

    with pytest.raises(KeyboardInterrupt):
        side_by_side(pipeline(), work, range(2))
    assert len(ended) == 1 and ended[0] < 1000


def test_what_cannot_be_copied_runs_alone(two):
    own = pipeline()
    own.lock = threading.Lock()
    assert side_by_side(own, lambda one, job: one is own, range(2)) == [True, True]


def test_threads_are_as_many_afterwards_as_before(two):
    assert side_by_side(pipeline(), lambda _, job: torch.get_num_threads(), range(2)) == [1, 1]
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert (torch.get_num_threads(), found) == (2, [2])


def test_large_watched_and_other_models_run_alone(two, monkeypatch):
    assert lanes(pipeline()) == 2
    watched = pipeline()
    handle = watched.transformer.register_forward_hook(lambda *_: None)
    assert lanes(watched) == 1
    assert side_by_side(watched, lambda own, job: (own is watched, job), range(2)) == [(True, 0), (True, 1)]
    handle.remove()
    assert lanes(watched) == 2
    moved = pipeline()
    moved.transformer._diffusers_hook = SimpleNamespace(hooks={})
    assert lanes(moved) == 2, "an empty registry is left by every run"
    moved.transformer._diffusers_hook.hooks["layerwise_casting"] = object()
    assert lanes(moved) == 1
    compiled = pipeline()
    compiled.transformer.compile()
    assert lanes(compiled) == 1
    elsewhere = SimpleNamespace(transformer=torch.nn.Linear(2, 2, device="meta"))
    assert lanes(elsewhere) == 1
    monkeypatch.setattr(module, "SMALL", 4 * 20)
    assert lanes(pipeline()) == 1


def test_steered_pictures_are_those_of_one_run_after_another(demo_flux, two):
    site = Site.parse("double.1.img")
    direction = torch.randn(demo_flux.transformer.inner_dim, generator=torch.Generator().manual_seed(0))

    def draw(own, job):
        return draw_pictures(own, ["a red circle"], [job], Sampling(steps=3), Plan([Add(site, direction, float(job))]))

    beside = side_by_side(demo_flux, draw, range(4))
    assert not any(one._forward_hooks for one in demo_flux.transformer.modules())
    for job, picture in enumerate(beside):
        alone = draw(demo_flux, job)
        # a thread less rounds another way
        assert abs(picture.astype(int) - alone.astype(int)).max() <= 3
    assert abs(beside[0].astype(int) - beside[3].astype(int)).max() > 30
