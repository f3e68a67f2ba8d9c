"""The demo's stage: a server of its own for the story, over a new home folder."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console

from app.demo.answers import StoryFailed
from app.demo.story import tell

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 60.0


def perform(port: int, *, stay: bool) -> int:
    """Start a server, tell the story to it, and keep it up with ``stay``; the exit code: 0 is success."""
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds the stack, which stops the server
    home = Path(os.environ.get("ROUNDHOUSE_HOME", "models_store")) / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    key = "rh_" + secrets.token_urlsafe(32)
    url = f"http://{HOST}:{port}"
    started = time.monotonic()
    with running_server(home, port, key) as server:
        console.print(f"Roundhouse is starting; its data is in {home}, its log in {home / 'server.log'}.")
        try:
            wait_until_ready(url, server)
            tell(url, key)
        except (httpx.HTTPError, StoryFailed) as error:
            console.print(f"\n[bold red]The demo failed:[/] {error}")
            return 1
        console.print(f"\nThat took {time.monotonic() - started:.0f} seconds.")
        if stay:
            console.print(
                f"\nThe server stays up: [bold]{url}/docs[/]\n"
                f"Authorize there with the key  [bold]{key}[/]\n"
                "Press Ctrl-C to stop it."
            )
            wait_for_interrupt(server)
    return 0


@contextmanager
def running_server(home: Path, port: int, key: str) -> Iterator[subprocess.Popen[bytes]]:
    home.mkdir(parents=True)
    environment = os.environ | {
        "ROUNDHOUSE_HOME": str(home),
        "ROUNDHOUSE_ADMIN_KEY": key,
        "ROUNDHOUSE_DATABASE_URL": "",
        "ROUNDHOUSE_STORE_URL": "",
    }
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "app", "serve", "--host", HOST, "--port", str(port)],
            env=environment,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the server
        )
    try:
        yield server
    finally:
        server.terminate()
        server.wait(STOP_SECONDS)


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise StoryFailed("the server has not become ready; its log says why")


def wait_for_interrupt(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait()
    except KeyboardInterrupt:
        return
