import errno
import hashlib
import threading
import time

import pytest

from llm_blender._hub import cache_dir, offline
from llm_blender.errors import DownloadError
from llm_blender.llms import downloads
from llm_blender.llms.downloads import fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def source(server):
    server.files["/file.bin"] = CONTENT
    return server


def left(folder):
    """List a folder without locks."""
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_it_fetches_once_and_tells_its_progress(source, tmp_path):
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        path = fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256, progress=lambda *now: calls.append(now))
        assert path.read_bytes() == CONTENT
    assert len(source.seen) == 1
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert left(tmp_path) == {"f"}


def test_a_broken_connection_is_taken_up_where_it_broke(source, tmp_path):
    source.cut = [300_000, 500_000]
    fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256)
    spans = [span for _, _, span in source.seen]
    assert spans[0] is None
    assert len(spans) == 3
    assert all(int(span.removeprefix("bytes=").removesuffix("-")) > 0 for span in spans[1:])


def test_a_later_run_takes_up_what_an_earlier_one_left(source, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT[:1000])
    assert fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256).read_bytes() == CONTENT
    assert source.seen == [("GET", "/file.bin", "bytes=1000-")]


def test_a_part_that_is_the_whole_file(source, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT)
    assert fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(source, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    assert fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(source, tmp_path):
    source.ranges, source.cut = False, [300_000]
    assert fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256).read_bytes() == CONTENT


def test_a_server_that_stumbles_is_asked_again(source, tmp_path):
    source.statuses = [503]
    assert fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256).read_bytes() == CONTENT


def test_wrong_bytes_are_removed_and_reported(source, tmp_path):
    source.files["/file.bin"] = b"something else"
    with pytest.raises(DownloadError, match=r"arrived damaged .*was removed: try again"):
        fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256)
    assert left(tmp_path) == set()


@pytest.mark.parametrize(("status", "says"), [(404, "no such file"), (401, "HF_TOKEN"), (418, "HTTP 418")])
def test_a_refusal_is_final(source, tmp_path, status, says):
    source.statuses = [status]
    with pytest.raises(DownloadError, match=says):
        fetch(f"{source.url}/file.bin", tmp_path / "f")
    assert len(source.seen) == 1


def test_nobody_listens(tmp_path):
    with pytest.raises(DownloadError, match=r"check the network"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "f")


def test_a_connection_that_always_breaks_is_given_up(source, tmp_path):
    source.cut = [1000] + [0] * 9
    with pytest.raises(DownloadError, match="what has arrived is kept"):
        fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256)
    assert (tmp_path / "f.part").stat().st_size == 1000


@pytest.mark.parametrize(("code", "says"), [(errno.ENOSPC, "no space is left"), (errno.EACCES, "Permission denied")])
def test_a_disk_that_refuses(source, tmp_path, monkeypatch, code, says):
    def refuse(*args, **kwargs):
        raise OSError(code, "Permission denied" if code == errno.EACCES else "No space left on device")

    monkeypatch.setattr(downloads, "write_part", refuse)
    with pytest.raises(DownloadError, match=rf"{says}.*LLM_BLENDER_CACHE"):
        fetch(f"{source.url}/file.bin", tmp_path / "f", sha256=SHA256)


def test_a_token_stays_with_the_server_it_is_for(source, server, tmp_path):
    """Send no token to the storage behind the Hub, which gets signed addresses."""
    source.redirects["/hub"] = f"{source.url.replace('127.0.0.1', 'localhost')}/file.bin"
    fetch(f"{source.url}/hub", tmp_path / "f", sha256=SHA256, headers={"Authorization": "Bearer hf_secret"})
    assert source.tokens == {"/hub": "Bearer hf_secret", "/file.bin": None}


def test_two_at_once_fetch_it_once(source, tmp_path):
    threads = [
        threading.Thread(target=fetch, args=(f"{source.url}/file.bin", tmp_path / "f"), kwargs={"sha256": SHA256})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(source.seen) == 1


def test_the_environment_is_read_when_it_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_BLENDER_CACHE", "~/elsewhere")
    assert cache_dir().is_absolute()
    assert cache_dir().name == "elsewhere"
    monkeypatch.delenv("LLM_BLENDER_CACHE")
    assert "llm-blender" in cache_dir().parts
    assert not offline()
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    assert offline()
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    assert offline()
