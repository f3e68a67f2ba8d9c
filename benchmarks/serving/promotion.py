"""Promotion under load: does any request fail, and do the seconds of a swap feel slower?"""

import asyncio
import gc
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import numpy as np
import uvloop
from data import Row
from load import Load, Wrk
from servers import Server

PROBES = 4
"""So many of the connections tell when each answer came; the others, wrk's, make the load."""
PROMOTE_EVERY_SECONDS = 2.0
SWAP_SECONDS = 1.0

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Promotions:
    """What the clients saw: requests a second of all, latencies of the probes in microseconds.

    ``failed`` counts the requests of all clients, ``refused`` the promotions that were not answered 201.
    ``swap_p99`` is of the requests that ended within SWAP_SECONDS of a promotion's start, ``usual_p99`` of
    the others.
    """

    rate: float
    failed: int
    promotions: int
    refused: int
    swap_p99: float
    usual_p99: float


def promote_under_load(
    server: Server,
    rows: list[Row],
    wrk: Wrk,
    *,
    path: str,
    admin_key: str,
    connections: int,
    seconds: float,
) -> Promotions:
    """Promote versions 1 and 2 in turn while every connection always has a request on its way."""
    load = partial(
        wrk.run, server, [[row] for row in rows], connections=max(connections - PROBES, 1), seconds=seconds
    )
    predict = [_request(server.dialect.path, server.headers, server.dialect.encode([row])) for row in rows]
    admin = {"Content-Type": "application/json", "Authorization": f"Bearer {admin_key}"}
    promote = [_request(path, admin, b'{"version": %d}' % version) for version in (2, 1)]
    gc.disable()  # a pause of this client's would look like one of the server's
    try:
        return uvloop.run(_run(server, predict, promote, load, seconds))
    finally:
        gc.enable()


async def _run(
    server: Server, predict: list[bytes], promote: list[bytes], load: Callable[[], Load], seconds: float
) -> Promotions:
    url = urlsplit(server.url)
    end = time.perf_counter() + seconds
    ended: list[float] = []
    took: list[float] = []
    failed = 0

    async def keep_asking(first: int) -> None:
        nonlocal failed
        streams, turn = await asyncio.open_connection(url.hostname, url.port), first
        while (before := time.perf_counter()) < end:
            try:
                good = await _ask(streams, predict[turn % len(predict)]) == b"200"
            except (OSError, EOFError):
                good, streams = False, await asyncio.open_connection(url.hostname, url.port)
            after = time.perf_counter()
            ended.append(after)
            took.append(after - before)
            failed += not good
            turn += 1
        streams[1].close()

    async def keep_promoting() -> tuple[list[float], int]:
        streams = await asyncio.open_connection(url.hostname, url.port)
        moments: list[float] = []
        refused = 0
        await asyncio.sleep(PROMOTE_EVERY_SECONDS)
        while (now := time.perf_counter()) < end:
            refused += await _ask(streams, promote[len(moments) % 2]) != b"201"
            moments.append(now)
            await asyncio.sleep(now + PROMOTE_EVERY_SECONDS - time.perf_counter())
        streams[1].close()
        return moments, refused

    (moments, refused), loaded, *_ = await asyncio.gather(
        keep_promoting(), asyncio.to_thread(load), *map(keep_asking, range(PROBES))
    )
    at, latencies = np.array(ended), np.array(took) * 1e6
    in_swap = np.zeros(len(at), dtype=bool)
    for moment in moments:
        in_swap |= (at >= moment) & (at < moment + SWAP_SECONDS)
    return Promotions(
        rate=loaded.rate + (len(at) - failed) / seconds,
        failed=failed + loaded.failed,
        promotions=len(moments),
        refused=refused,
        swap_p99=float(np.percentile(latencies[in_swap], 99)),
        usual_p99=float(np.percentile(latencies[~in_swap], 99)),
    )


async def _ask(streams: Streams, request: bytes) -> bytes:
    """Send, read the whole answer, return its status code."""
    reader, writer = streams
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if length is None:
        raise EOFError("an answer without a length")
    await reader.readexactly(int(length[1]))
    return head[9:12]


def _request(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: benchmark", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
