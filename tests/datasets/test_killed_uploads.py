"""A server killed while it takes a file in leaves nothing of it; and large files need little memory."""

import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import zstandard

from tests.client import wait_until
from tests.processes import Serve, connect, free_port, run

MEGABYTE = 2**20
CSV = {"content-type": "text/csv"}
URL = "/v1/datasets/arrivals/versions"
ROWS, LARGE_ROWS = 250_000, 7_000_000
CONTENT = b"a,b,c\n" + b"".join(b"%d,%d.5,word%d\n" % (row, row * 7, row % 1000) for row in range(ROWS))


class Home:
    """What a server has written to its disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "home"

    def working_files(self) -> list[Path]:
        return [path for path in self._folder.glob("scratch/*/*") if path.name != "owner.lock"]

    def receives(self) -> bool:
        return any(path.stat().st_size > MEGABYTE for path in self._folder.glob("scratch/*/*/upload"))

    def reads(self) -> bool:
        return any(self._folder.glob("scratch/*/*/.canonical.parquet-*"))

    def stores(self) -> bool:
        return any(path.is_file() for path in self._folder.glob("objects/*/**/*"))

    def objects(self) -> set[str]:
        return {f"sha256:{path.name}" for path in self._folder.glob("objects/sha256/*/*")}

    def temporary_objects(self) -> list[Path]:
        return list(self._folder.glob("objects/tmp/*"))


@pytest.mark.parametrize(
    "moment", [Home.receives, Home.reads, Home.stores], ids=["receives", "reads", "stores"]
)
def test_sigkill_while_a_file_is_taken_in_leaves_no_part_of_a_version(
    tmp_path: Path, moment: Callable[[Home], bool]
) -> None:
    home, port, killed = Home(tmp_path), free_port(), threading.Event()

    def body() -> Iterator[bytes]:
        half = len(CONTENT) // 2
        yield CONTENT[:half]
        if moment is Home.receives:
            killed.wait()
        yield CONTENT[half:]

    def upload() -> None:
        with pytest.raises(httpx.TransportError):
            client.post(URL, content=body(), headers=CSV)

    with connect(f"http://127.0.0.1:{port}") as client, ThreadPoolExecutor() as pool:
        with Serve(tmp_path, "--no-worker", port=port) as server:
            server.wait_until_ready()
            assert client.post("/v1/datasets", json={"name": "arrivals"}).status_code == 201
            attempt = pool.submit(upload)
            wait_until(lambda: moment(home) or attempt.done())
            server.kill_everything()
            killed.set()
            attempt.result()
        with Serve(tmp_path, port=port) as server:
            server.wait_until_ready()
            server.worker()
            wait_until(lambda: not home.working_files() and not home.temporary_objects())
            assert client.get(URL).json()["items"] == []
            assert collected(tmp_path, "--dry-run") == home.objects()
            version = client.post(URL, content=CONTENT, headers=CSV)
            assert (version.status_code, version.json()["version"]) == (201, 1)
            assert version.json()["rows"] == ROWS
            assert server.terminate() == 0
    kept = home.objects() - collected(tmp_path)
    assert version.json()["digest"] in kept
    assert home.objects() == kept


def collected(folder: Path, *options: str) -> set[str]:
    """The digests of what ``roundhouse gc`` removes."""
    told = run(folder, "gc", "--older-than", "0", "--json", *options)
    assert told.returncode == 0, told.stderr
    return {entry["digest"] for entry in json.loads(told.stdout)["objects"]}


def test_a_large_file_is_taken_in_with_little_memory(tmp_path: Path) -> None:
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.write(b"a,b,c\n")
        for start in range(0, LARGE_ROWS, 100_000):
            file.writelines(
                b"%d,%d.5,word%d\n" % (n, n * 7 % 99_991, n % 5000) for n in range(start, start + 100_000)
            )
    size = large.stat().st_size
    assert size > 150 * MEGABYTE
    with Serve(tmp_path, "--no-worker") as server:
        client = server.wait_until_ready()
        client.timeout = httpx.Timeout(300)
        client.add_dataset("warm", CONTENT)
        assert client.post("/v1/datasets", json={"name": "arrivals"}).status_code == 201
        with large.open("rb") as file:
            added = client.post(URL, content=file, headers=CSV)
        assert (added.status_code, added.json()["rows"]) == (201, LARGE_ROWS), added.text
        first = peak_memory(server)
        with large.open("rb") as file:
            again = client.post(URL, content=file, headers=CSV)
        assert (again.status_code, again.json()) == (200, added.json())
        assert peak_memory(server) == first
        assert first < 600 * MEGABYTE


def test_files_that_are_made_to_take_memory_take_little(tmp_path: Path) -> None:
    files = {
        "a gzip bomb": (gzip.compress(b"a\n" + b"1\n" * (200 * MEGABYTE), 9), 413),
        "a zstd bomb": (zstandard.ZstdCompressor(level=19).compress(bytes(1000 * MEGABYTE)), 413),
        "one line": (b"a,b\n" + b"x" * (100 * MEGABYTE), 422),
        "one quote": (b'a,b\n"' + b"x\n" * (50 * MEGABYTE), 422),
        "a text of few bytes in many": (("a,b\n" + "1,x\n" * (10 * MEGABYTE)).encode("utf-32"), 201),
    }
    with Serve(tmp_path, "--no-worker") as server:
        client = server.wait_until_ready()
        client.timeout = httpx.Timeout(300)
        assert client.post("/v1/datasets", json={"name": "arrivals"}).status_code == 201
        for name, (content, status) in files.items():
            answer = client.post(URL, content=content, headers=CSV)
            assert answer.status_code == status, f"{name}: {answer.text}"
        assert peak_memory(server) < 600 * MEGABYTE


def peak_memory(server: Serve) -> int:
    """The most memory (RSS) that the server has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
