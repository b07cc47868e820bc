import contextlib
import errno
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluxtionary.residual.shard_manifest import MANIFEST
from fluxtionary.residual.shards import ShardError, Shards, ShardWriter
from fluxtionary.residual.tokens import Tokens

from .captures import ABOUT, BATCHES, IMG, TXT, WIDTH, batch_of, capture, contents, same


@pytest.fixture
def whole(tmp_path):
    capture(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_written_is_read_to_the_bit(tmp_path, dtype):
    writer = capture(tmp_path / "a" / "b", dtype=dtype)
    assert (writer.done, writer.complete) == (BATCHES, True)
    shards = Shards(tmp_path / "a" / "b")
    shards.verify()
    assert (shards.sites, shards.d_model, shards.dtype) == ((IMG, TXT), WIDTH, dtype)
    assert (shards.model, shards.header, shards.grid) == (ABOUT["model"], ABOUT["header"], (2, 4))
    assert (list(shards.prompts), list(shards.seeds)) == (ABOUT["prompts"], ABOUT["seeds"])
    assert (shards.batches, shards.done, shards.complete) == (BATCHES, BATCHES, True)
    assert [(shard.first, shard.end) for shard in shards.shards] == [(0, 3), (3, 6), (6, 7)]
    for i in range(BATCHES):
        assert all(same(tokens, batch_of(i, dtype)[site]) for site, tokens in shards.batch(i).items())
    for site in (IMG, TXT):
        parts = [batch_of(i, dtype)[site] for i in range(BATCHES)]
        assert same(Tokens.joined([shards.open(site, number) for number in range(3)]), Tokens.joined(parts))
        assert shards.tokens(site) == shards.tokens(str(site)) == sum(len(part.x) for part in parts)
    assert {len(batch_of(i)[TXT].x) for i in range(BATCHES)} >= {0, 9}


def test_files_are_plain_safetensors(whole):
    tensors = load_file(whole / "single.0.txt-00000.safetensors")
    assert {name: (tensor.dtype, tensor.shape[1:]) for name, tensor in tensors.items()} == {
        "x": (torch.bfloat16, (3,)),
        "sigma": (torch.float32, ()),
        "position": (torch.int32, ()),
        "picture": (torch.int64, ()),
    }
    assert sorted(contents(whole)) == sorted(
        [MANIFEST, *(f"{site}-{number:05d}.safetensors" for site in (IMG, TXT) for number in range(3))]
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux says what is mapped where")
def test_activations_are_mapped_and_changing_them_leaves_the_file(whole):
    x = Shards(whole).batch(1)[IMG].x
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [(*(int(end, 16) for end in line[0].split("-")), line[-1]) for line in lines]
    assert [name for low, high, name in ranges if low <= x.data_ptr() < high] == [
        str(whole / "double.1.img-00000.safetensors")
    ]
    x.zero_()
    Shards(whole).verify()


def test_a_site_without_tokens_in_a_shard(tmp_path):
    def empty(i):
        return {IMG: batch_of(i)[IMG], TXT: batch_of(i)[TXT].rows(slice(0))}

    with ShardWriter(tmp_path / "s", **(ABOUT | {"batches": 2})) as writer:
        writer.add(empty(0))
        writer.add(empty(1))
    shards = Shards(tmp_path / "s")
    assert shards.open(TXT, 0).x.shape == shards.batch(1)[TXT].x.shape == (0, 3)


def test_what_is_kept_is_a_copy(tmp_path, whole):
    with ShardWriter(tmp_path / "s", **ABOUT) as writer:
        for i in range(BATCHES):
            batch = batch_of(i)
            writer.add(batch)
            for column in batch[IMG]:
                column.zero_()
    assert contents(tmp_path / "s") == contents(whole)


@pytest.mark.parametrize("cut", range(BATCHES))
def test_a_capture_resumes_to_the_same_bytes(tmp_path, whole, cut):
    folder = tmp_path / "cut"
    writer = capture(folder, cut)
    assert (writer.done, writer.complete) == (cut // 3 * 3, False)
    shards = Shards(folder)
    assert (shards.done, shards.complete, shards.batches) == (writer.done, False, BATCHES)
    shuffled = dict(reversed(ABOUT["header"].items()))
    assert capture(folder, header=shuffled).complete
    assert contents(folder) == contents(whole)


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_after(patch, steps):
    """After so many writes, syncs and renames the process does nothing any more, not even tidy up."""
    left = [steps]
    sync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def counted(call):
        def run(*args, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return call(*args, **options)

        return run

    patch.setattr(os, "fsync", counted(sync))
    patch.setattr(Path, "replace", counted(replace))
    patch.setattr(Path, "unlink", lambda *args, **options: left[0] and unlink(*args, **options))
    return left


def test_cut_off_at_any_moment_the_folder_is_whole_and_resumes_to_the_same_bytes(tmp_path, whole, monkeypatch):
    moment, finished = 0, False
    while not finished:
        folder = tmp_path / f"killed at {moment}"
        with monkeypatch.context() as patch:
            kill_after(patch, moment)
            with contextlib.suppress(Killed):
                finished = capture(folder).complete
        shards = Shards(folder) if (folder / MANIFEST).exists() else None
        if shards:
            shards.verify()
            assert all(same(shards.batch(i)[IMG], batch_of(i)[IMG]) for i in range(shards.done))
        if not shards or not shards.complete:
            capture(folder)
        assert contents(folder) == contents(whole)
        moment += 1
    assert moment > 25  # three shards of two files, each synced and renamed, and a manifest each


CHILD = """
import sys, time
from tests.residual.captures import ABOUT, ShardWriter, batch_of
with ShardWriter(sys.argv[1], **(ABOUT | {"shard_tokens": 1})) as writer:
    print("ready", flush=True)
    for i in range(writer.done, 7):
        writer.add(batch_of(i))
        time.sleep(0.01)
"""


@pytest.mark.long
def test_a_killed_process_leaves_whole_shards(tmp_path):
    capture(tmp_path / "whole", shard_tokens=1)
    root, rng, folder = Path(__file__).parents[2], random.Random(0), tmp_path / "killed"
    kills, seen = 0, set()
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert child.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.02))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        shards = Shards(folder)
        shards.verify()
        seen.add(shards.done)
        if shards.complete:
            break
    assert kills >= 2 and len(seen) >= 2
    if not shards.complete:
        capture(folder, shard_tokens=1)
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("call", range(12))
def test_a_full_disk_is_named_and_leaves_what_was_written(tmp_path, whole, monkeypatch, call):
    folder, left, sync = tmp_path / "full", [call], os.fsync

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ShardError, match=r"full.*No space left on device; .*goes on from there"):
            capture(folder)
    assert not list(folder.glob("*.part"))
    if (folder / MANIFEST).exists():
        Shards(folder).verify()
    capture(folder)
    assert contents(folder) == contents(whole)


def test_a_file_that_cannot_be_written_to_its_end(tmp_path, whole):
    resource = pytest.importorskip("resource")
    folder, (soft, hard) = tmp_path / "s", resource.getrlimit(resource.RLIMIT_FSIZE)
    capture(folder, 3)
    before = contents(folder)
    with ShardWriter(folder, **ABOUT) as writer:
        writer.add(batch_of(3))
        writer.add(batch_of(4))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # within the second file's numbers
        try:
            with pytest.raises(ShardError, match=r"double\.1\.img-00001.*File too large; what was written before is"):
                writer.add(batch_of(5))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(folder) == before
    capture(folder)
    assert contents(folder) == contents(whole)


def test_a_writer_that_failed_takes_nothing_more(tmp_path, monkeypatch):
    folder = tmp_path / "full"
    with ShardWriter(folder, **ABOUT) as writer:
        writer.add(batch_of(0))
        writer.add(batch_of(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EDQUOT, "Quota exceeded")))
            with pytest.raises(ShardError, match=r"double\.1\.img-00000.*Quota exceeded"):
                writer.add(batch_of(2))
        with pytest.raises(ShardError, match="a closed one; open a new writer"):
            writer.add(batch_of(3))
    assert [path.name for path in folder.iterdir()] == [MANIFEST]


def test_folders_that_cannot_be_made_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match=r"file.*a place that can be written"):
        capture(tmp_path / "file" / "inside")
    with pytest.raises(ShardError, match=r"file.*a place that can be written"):
        capture(tmp_path / "file")


def described(folder):
    data = json.loads((folder / MANIFEST).read_bytes())
    return {name: value for name, value in data.items() if name != "batches"}


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_a_capture_of_unknown_length_ends_with_what_was_added(tmp_path, count):
    """The bytes are those of a capture that was known to be so long."""
    capture(tmp_path / "known", count, batches=count)
    with ShardWriter(tmp_path / "s", **(ABOUT | {"batches": 1000})) as writer:
        for i in range(count):
            writer.add(batch_of(i))
        assert not writer.complete
        writer.finish()
        writer.finish()
        assert (writer.done, writer.complete) == (count, True)
        with pytest.raises(ShardError, match="a closed one"):
            writer.add(batch_of(count))
    assert contents(tmp_path / "s") == contents(tmp_path / "known")
    shards = Shards(tmp_path / "s")
    shards.verify()
    assert (shards.batches, shards.done, shards.complete) == (count, count, True)


def test_a_capture_of_unknown_length_resumes_before_its_end_and_not_after(tmp_path):
    long = {"batches": 1000}
    writer = capture(tmp_path / "s", 5, **long)
    assert (writer.done, writer.complete) == (3, False)
    before = described(tmp_path / "s")
    shards = Shards(tmp_path / "s")
    assert (shards.done, shards.complete, shards.batches) == (3, False, 1000)
    with pytest.raises(ShardError, match="a closed one"):
        writer.finish()
    assert described(tmp_path / "s") == before
    with ShardWriter(tmp_path / "s", **(ABOUT | long)) as again:
        for i in range(again.done, 5):
            again.add(batch_of(i))
        again.finish()
    capture(tmp_path / "known", 5, batches=5)
    assert contents(tmp_path / "s") == contents(tmp_path / "known")
    with pytest.raises(ShardError, match="batches = 1000, found batches = 5"):
        ShardWriter(tmp_path / "s", **(ABOUT | long))


def test_a_capture_that_ends_without_a_batch_leaves_nothing(tmp_path):
    writer = ShardWriter(tmp_path / "s", **ABOUT)
    writer.finish()
    assert not writer.complete and not (tmp_path / "s").exists()


def test_killed_while_it_finishes_a_capture_is_whole_and_readable(tmp_path, monkeypatch):
    capture(tmp_path / "known", 4, batches=4)
    long, moment, finished = ABOUT | {"batches": 1000}, 0, False
    while not finished:
        folder = tmp_path / f"killed at {moment}"
        writer = ShardWriter(folder, **long)
        for i in range(4):
            writer.add(batch_of(i))
        with monkeypatch.context() as patch:
            kill_after(patch, moment)
            with contextlib.suppress(Killed):
                writer.finish()
                finished = True
        shards = Shards(folder)
        shards.verify()
        assert shards.complete == (shards.batches == 4) and shards.done in (3, 4)
        if not shards.complete:
            with ShardWriter(folder, **long) as again:
                for i in range(again.done, 4):
                    again.add(batch_of(i))
                again.finish()
        assert contents(folder) == contents(tmp_path / "known")
        moment += 1
    assert moment > 5


def test_a_discarded_capture_takes_its_own_files_and_no_others(tmp_path):
    for others in ((), ("notes.txt",)):
        folder = tmp_path / f"with {len(others)}"
        writer = ShardWriter(folder, **ABOUT)
        for i in range(4):
            writer.add(batch_of(i))
        for name in others:
            (folder / name).write_text("mine")
        writer.discard()
        assert sorted(path.name for path in folder.iterdir()) == [*others] if others else not folder.exists()
        with pytest.raises(ShardError, match="a closed one"):
            writer.add(batch_of(4))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ShardError, match="Permission denied"):
        capture(tmp_path)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sites": (TXT, IMG)}, r"sites\[0\] = 'double.1.img'"),
        ({"d_model": {IMG: 6, TXT: 4}}, r"d_model.single.0.txt = 4, found d_model.single.0.txt = 3"),
        ({"dtype": torch.float32}, "dtype = 'bfloat16'"),
        ({"header": ABOUT["header"] | {"steps": 3}}, "header.steps = 3, found header.steps = 2"),
        ({"header": {"steps": 2}}, "header.height = None, found header.height = 128"),
        ({"model": {"family": "flux1", "name": "dev"}}, "model.name = 'demo'"),
        ({"prompts": ["other", *ABOUT["prompts"][1:]]}, r"prompts\[0\] = 'other'"),
        ({"seeds": [3, *ABOUT["seeds"][1:]]}, r"seeds\[0\] = 3"),
        ({"prompts": ["one"], "seeds": [1]}, "length of prompts = 1"),
        ({"grid": (4, 4)}, r"grid\[0\] = 4"),
        ({"batches": 8}, "batches = 8, found batches = 7"),
    ],
)
def test_another_capture_s_folder_is_refused_and_the_field_named(tmp_path, changes, words):
    capture(tmp_path / "s", 4)
    before = contents(tmp_path / "s")
    with pytest.raises(ShardError, match=words):
        ShardWriter(tmp_path / "s", **(ABOUT | changes))
    assert contents(tmp_path / "s") == before


def test_folders_with_something_else_are_refused(tmp_path, whole):
    with pytest.raises(ShardError, match="found one that is complete; read it"):
        ShardWriter(whole, **ABOUT)
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(ShardError, match=r"an empty folder.*no manifest.json but 'photo.jpg'"):
        ShardWriter(tmp_path, **ABOUT)
    assert (tmp_path / "photo.jpg").exists()


def test_only_what_a_writer_left_behind_is_removed(tmp_path, whole):
    folder = tmp_path / "s"
    capture(folder, 4)
    (folder / "notes.txt").write_text("mine")
    for name in ("double.1.img-00001.safetensors", "single.0.txt-00002.safetensors.part", "manifest.json.part"):
        (folder / name).write_text("half")
    ShardWriter(folder, **ABOUT).close()
    assert sorted(contents(folder).keys() - {MANIFEST, "notes.txt"}) == [
        "double.1.img-00000.safetensors",
        "single.0.txt-00000.safetensors",
    ]
    capture(folder)
    (folder / "notes.txt").unlink()
    assert contents(folder) == contents(whole)


def test_two_captures_in_one_folder_are_noticed(tmp_path):
    folder = tmp_path / "s"
    with ShardWriter(folder, **ABOUT) as first:
        first.add(batch_of(0))
        capture(folder)
        first.add(batch_of(1))
        with pytest.raises(ShardError, match="one capture at a time"):
            first.add(batch_of(2))
    Shards(folder).verify()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sites": (), "d_model": {}}, "a list of sites"),
        ({"sites": (IMG, IMG)}, "each once"),
        ({"d_model": {IMG: 6}}, "d_model, a positive number for each site"),
        ({"dtype": torch.float64}, "dtype one of float32, float16, bfloat16, found 'torch.float64'; describe"),
        ({"header": {"x": float("nan")}}, "plain JSON"),
        ({"header": {"x": torch.zeros(1)}}, "plain JSON"),
        ({"seeds": [1]}, "a seed for each prompt, found 1 for 14 prompts"),
        ({"seeds": [0.5] * 14}, "whole numbers"),
        ({"grid": (2, 0)}, "grid"),
        ({"batches": 0}, "batches, a positive number"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(tmp_path, changes, words):
    with pytest.raises(ShardError, match=words):
        ShardWriter(tmp_path / "s", **(ABOUT | changes))
    assert not (tmp_path / "s").exists()


def test_a_shard_has_room():
    with pytest.raises(ValueError, match="shard_tokens = 0"):
        ShardWriter("nowhere", **(ABOUT | {"shard_tokens": 0}))


BAD_BATCHES = [
    (lambda b: b.pop(TXT), "of double.1.img; pass every site"),
    (lambda b: b.update({IMG: b[IMG]._replace(x=b[IMG].x[:, :5])}), r"x \[n, 6\].*\(16, 5\)"),
    (lambda b: b.update({IMG: b[IMG]._replace(sigma=b[IMG].sigma[:3])}), r"shapes.*\(3,\)"),
    (lambda b: b.update({IMG: b[IMG]._replace(picture=b[IMG].picture + 14)}), "from 0 to 13 at double.1.img, found"),
    (lambda b: b.update({IMG: b[IMG]._replace(position=b[IMG].position - 1)}), "found -1 to 6; number them"),
    (lambda b: b.update({IMG: b[IMG]._replace(position=b[IMG].position + 2**31)}), "found 2147483648"),
    (lambda b: b[TXT].x.fill_(float("nan")), "finite activations at single.0.txt"),
    (lambda b: b[IMG].sigma[3:].fill_(float("inf")), "finite activations"),
]


@pytest.mark.parametrize(("change", "words"), BAD_BATCHES)
def test_tokens_that_do_not_fit_are_refused_and_not_taken(tmp_path, whole, change, words):
    with ShardWriter(tmp_path / "s", **ABOUT) as writer:
        for i in range(BATCHES):
            bad = batch_of(i)
            change(bad)
            if i not in (2, 6):  # these have no text tokens
                with pytest.raises(ShardError, match=words):
                    writer.add(bad)
            writer.add(batch_of(i))
        with pytest.raises(ShardError, match="closed"):
            writer.add(batch_of(0))
    assert contents(tmp_path / "s") == contents(whole)


def test_activations_too_large_for_the_type_are_refused(tmp_path):
    batch = batch_of(0, torch.float32)
    batch[IMG].x[3, 2] = 70_000
    with (
        ShardWriter(tmp_path / "s", **(ABOUT | {"dtype": torch.float16})) as writer,
        pytest.raises(ShardError, match=r"in float16, found a largest one of 7e\+04; capture in bfloat16"),
    ):
        writer.add(batch)


def test_what_is_not_there_cannot_be_asked_for(tmp_path, whole):
    shards = Shards(whole)
    for i in (-1, BATCHES):
        with pytest.raises(IndexError, match="batches 0 to 6"):
            shards.batch(i)
    with pytest.raises(IndexError, match="shards 0 to 2, not 3"):
        shards.open(IMG, 3)
    with pytest.raises(ShardError, match=r"one of the sites double.1.img, single.0.txt, found double.0.img"):
        shards.tokens("double.0.img")


def test_shards_and_their_errors_survive_a_process_pool(whole):
    assert same(pickle.loads(pickle.dumps(Shards(whole))).batch(3)[TXT], batch_of(3)[TXT])
    error = pickle.loads(pickle.dumps(ShardError(whole, "one thing", "another", "do this")))
    assert str(error) == f"{whole}: expected one thing, found another; do this"
