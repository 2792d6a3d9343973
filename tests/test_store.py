import sqlite3
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_blender.config import load_config
from llm_blender.errors import StoreError
from llm_blender.store import Store, call_key, default_store_path
from llm_blender.types import Candidate, Message, Sampling, Usage

QUESTION: list[Message] = [{"role": "user", "content": "Say \N{SNOWMAN} something. \ud800"}]
IDENTITY = {"provider": "openai", "base_url": "http://localhost/v1", "model": "m"}
ANSWER = Candidate(
    "An answer.", model="llama", reasoning="Hm.", usage=Usage(3, 2), seconds=0.5, cost=0.01, finish_reason="stop"
)


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    with Store(tmp_path / "new" / "blend.db") as store:
        assert store.get("a") is None
        store.put("a", ANSWER)
        store.put("b", Candidate("Another."))
        assert store.get("a") == ANSWER
    with Store(tmp_path / "new" / "blend.db") as store:
        calls = list(store)
        assert [call.key for call in calls] == ["a", "b"]
        assert calls[0].candidate == ANSWER
        assert datetime.now(UTC) - calls[0].created_at < timedelta(minutes=1)
        assert len(store) == 2


def test_a_closed_store_keeps_no_connection(tmp_path: Path) -> None:
    store = Store(tmp_path / "blend.db")
    before = len(weakref.finalize._registry)
    for _ in range(5):
        assert len(store) == 0
        store.close()
    assert len(weakref.finalize._registry) <= before


def test_the_later_answer_to_the_same_call_stays(tmp_path: Path) -> None:
    with Store(tmp_path / "blend.db") as store:
        store.put("a", ANSWER)
        store.put("a", Candidate("Later."))
        assert [call.candidate.text for call in store] == ["Later."]


def test_a_key_depends_on_everything_that_an_answer_depends_on() -> None:
    calls = [
        (IDENTITY, QUESTION, Sampling()),
        ({**IDENTITY, "model": "n"}, QUESTION, Sampling()),
        ({**IDENTITY, "base_url": "http://elsewhere/v1"}, QUESTION, Sampling()),
        (IDENTITY, [*QUESTION, *QUESTION], Sampling()),
        (IDENTITY, QUESTION, Sampling(temperature=0.0)),
        (IDENTITY, QUESTION, Sampling(seed=0)),
        (IDENTITY, QUESTION, Sampling(sample=1)),
        (IDENTITY, QUESTION, Sampling(stop=("END",))),
    ]
    keys = [call_key(*call) for call in calls]
    assert len(set(keys)) == len(calls)
    assert all(len(key) == 64 for key in keys)
    assert call_key(dict(reversed(IDENTITY.items())), tuple(QUESTION), Sampling()) == keys[0]


def test_a_key_never_changes() -> None:
    """Find answers that users paid for, in every later version."""
    key = call_key(IDENTITY, [{"role": "user", "content": "é"}], Sampling(temperature=0.5, seed=1, sample=2))
    assert key == "ad519ced24b3975aaab50d9fae18387a0d6e0cac18b80b142b3291c70fb86252"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "x.db"))
    assert Store().path == default_store_path() == tmp_path / "x.db"
    monkeypatch.delenv("LLM_BLENDER_STORE")
    assert default_store_path().name == "blend.db"


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    with Store(tmp_path / "blend.db") as store:
        store.put("a", ANSWER)
        assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_threads_share_it(tmp_path: Path) -> None:
    with Store(tmp_path / "blend.db") as store, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(str(number), ANSWER), range(200)))
        assert len(store) == 200


def test_processes_share_it(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from llm_blender.store import Store
from llm_blender.types import Candidate
sys.stdin.readline()  # all begin at once
store = Store(Path(sys.argv[1]))
for number in range(50):
    store.put(f"{sys.argv[2]}-{number}", Candidate("An answer."))
"""
    path = tmp_path / "blend.db"
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, path, str(number)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait(20) for process in processes] == [0, 0, 0, 0]
    with Store(path) as store:
        assert len(store) == 200


def test_no_store(tmp_path: Path) -> None:
    path = tmp_path / "blend.db"
    path.write_bytes(b"This is no SQLite file." * 100)
    with Store(path) as store, pytest.raises(StoreError, match=r"blend\.db: .*move it away"):
        store.get("a")


def test_a_damaged_store(tmp_path: Path) -> None:
    path = tmp_path / "blend.db"
    with Store(path) as store:
        for number in range(500):
            store.put(str(number), ANSWER)
    content = bytearray(path.read_bytes())
    content[4096 : len(content) - 4096] = b"\x00" * (len(content) - 8192)
    path.write_bytes(content)
    with Store(path) as store, pytest.raises(StoreError, match="move it away"):
        list(store)


def test_a_damaged_answer(tmp_path: Path) -> None:
    path = tmp_path / "blend.db"
    with Store(path) as store:
        store.put("a", ANSWER)
        other = sqlite3.connect(path)
        with other:
            other.execute("UPDATE calls SET candidate = '[1'")
        other.close()
        with pytest.raises(StoreError, match="the answer a is damaged"):
            store.get("a")


@pytest.mark.parametrize("place", ["a folder", "below a file"])
def test_a_place_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path if place == "a folder" else tmp_path / "file" / "blend.db"
    with Store(path) as store, pytest.raises(StoreError, match="LLM_BLENDER_STORE"):
        store.put("a", ANSWER)


def test_a_full_disk(tmp_path: Path) -> None:
    with Store(tmp_path / "blend.db") as store:
        store.put("a", ANSWER)
        assert store._opened is not None
        store._opened.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="the disk is full"):
            store.put("b", Candidate("long " * 10_000))
        assert store.get("a") == ANSWER


def test_a_store_that_another_process_holds(tmp_path: Path) -> None:
    path = tmp_path / "blend.db"
    with Store(path, patience=0.1) as store:
        store.put("a", ANSWER)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process"):
            store.put("b", ANSWER)
        assert store.get("a") == ANSWER  # reading goes on
        other.close()


def test_a_store_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "blend.db"
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with Store(path) as store, pytest.raises(StoreError, match="upgrade llm-blender"):
        store.get("a")


def test_a_path_may_be_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store("new/x.db") as store:
        store.put("a", ANSWER)
    with Store(Path("new/x.db")) as store:
        assert store.get("a") == ANSWER
    (tmp_path / "blend.toml").write_text("[ranker]\nname = 'longest'\n")
    assert load_config("blend.toml").ranker.name == "longest"
