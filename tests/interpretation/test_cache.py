import sqlite3
import threading

import pytest

from fluxtionary.interpretation.cache import CacheError, Reply, ReplyCache

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
    with pytest.raises(CacheError, match="expected answers of version 1, found 0"):
        ReplyCache(database)
