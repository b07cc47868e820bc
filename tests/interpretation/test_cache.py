import sqlite3
import threading
from contextlib import closing

import pytest

from fluxtionary.atlas import Atlas
from fluxtionary.interpretation.cache import APPLICATION, CacheError, Reply, ReplyCache

from ..atlas.atlases import build

REPLY = Reply("answer", '{"score": 1}', 100, 5)


def test_replies_are_there_for_the_next_process(tmp_path):
    path = tmp_path / "new" / "answers"
    cache = ReplyCache(path)
    assert cache.get("a") is None
    cache.put("a", REPLY)
    other = ReplyCache(path)  # while the first is still open, as another process would
    assert other.get("a") == REPLY and other.get("b") is None
    other.put("a", REPLY._replace(outcome="refused"))
    assert cache.get("a").outcome == "refused"
    cache.close()
    other.close()


def test_many_threads_share_one(tmp_path):
    cache = ReplyCache(tmp_path / "answers")

    def work(number):
        for i in range(50):
            cache.put(f"{number} {i}", REPLY)
            assert cache.get(f"{number} {i}") == REPLY

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(cache.get(f"{number} {i}") for number in range(4) for i in range(50))
    cache.close()


def test_other_files_are_left_alone(tmp_path):
    path = tmp_path / "notes"
    path.write_text("not a database, but somebody's notes, long enough to be looked at" * 10)
    before = path.read_bytes()
    with pytest.raises(CacheError, match="name another file"):
        ReplyCache(path)
    assert path.read_bytes() == before

    database = tmp_path / "atlas.sqlite"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE features (number)")
    connection.close()
    with pytest.raises(CacheError, match="found a database of something else, with features"):
        ReplyCache(database)


def test_an_atlas_is_left_alone(tmp_path):
    file = build(tmp_path / "atlas") / "atlas.sqlite"
    before = file.read_bytes()
    with pytest.raises(CacheError, match="expected a file that keeps answers, found a database of something else"):
        ReplyCache(file)
    assert file.read_bytes() == before
    Atlas.open(file.parent).close()


def test_a_cache_of_the_first_release_is_gone_on_with(tmp_path):
    path = tmp_path / "answers"
    ReplyCache(path).put("a", REPLY)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION
        connection.execute("PRAGMA application_id = 0")
    cache = ReplyCache(path)
    assert cache.get("a") == REPLY
    cache.close()
