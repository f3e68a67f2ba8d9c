"""uvicorn's HTTP/1.1 over a connection, with the express lane ahead of it.

A plain request that came whole, between two others, is answered at once, or, where it is large, in a thread;
the bytes of any other are uvicorn's to read, as if nobody had looked at them before.
"""

import asyncio
from time import perf_counter
from typing import Any

import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.serving.express import END_OF_HEAD, STATE, Answered, Express
from app.serving.live import LiveDeployment, Target

log = structlog.get_logger()

BEGINNING = b"POST /v1/models/"


class ExpressProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._express: Express = app_state[STATE]
        self._held = bytearray()
        """The beginning of a plain request whose body is on its way, or what follows one in a thread."""
        self._awaited = 0
        """How many bytes of it are enough to look at it again."""
        self._in_thread = False
        self._ending = False
        self._in_message = False
        self._chosen: Target | None = None
        """Of the request that goes on to the application: it is chosen once."""
        self._answered_at = 0.0

    def data_received(self, data: bytes) -> None:
        started = perf_counter()
        if self._held or self._in_thread:
            self._held += data
            if self._in_thread or len(self._held) < self._awaited:
                return
            data = self._take_held()
        if self._in_message or not data.startswith(BEGINNING) or self._answering or self.flow.write_paused:
            super().data_received(data)
            return
        text, found, body = data.partition(END_OF_HEAD)
        head = self._express.read(text) if found else None
        deployment = self._express.deployment(head) if head and len(body) <= head.length else None
        if head is None or deployment is None:
            super().data_received(data)
            return
        if len(body) < head.length:
            self._held += data
            self._awaited = len(data) - len(body) + head.length
            return
        target = deployment.choose()
        arguments = target, head, body, self.server_state.default_headers
        if target.version.compiled is None or self._express.limit(target, head) is not None:
            self._answer(data, deployment, target, started, self._express.answer(*arguments))
            return
        self._in_thread = True
        self.flow.pause_reading()

        def finish(future: asyncio.Future[Answered | None]) -> None:
            self._in_thread = False
            if error := future.exception():
                log.error("express_failed", model=head.model, exc_info=error)
            if not self.transport.is_closing():
                self._answer(data, deployment, target, started, None if error else future.result())
                self.flow.resume_reading()
                if self._held:
                    self.data_received(self._take_held())
                if self._ending:
                    self.shutdown()

        self.loop.run_in_executor(None, self._express.answer, *arguments).add_done_callback(finish)

    def _answer(
        self,
        data: bytes,
        deployment: LiveDeployment,
        target: Target,
        started: float,
        answered: Answered | None,
    ) -> None:
        """Send the answer to the request ``data``, or hand that on."""
        if answered is None:
            self._chosen = target
            super().data_received(data)
            return
        self.transport.write(answered.response)
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_next(self.timeout_keep_alive)
        self._express.count(target, answered.rows, perf_counter() - started)
        if deployment.shadow is not None:
            self.loop.run_in_executor(None, self._express.score_shadow, deployment.shadow, answered)

    def _take_held(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    @property
    def _answering(self) -> bool:
        """Whether the application has yet to answer a request that came before."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's own annotation leaves the None out
        return cycle is not None and not cycle.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        if self._chosen is not None:
            self.scope["state"]["target"], self._chosen = self._chosen, None

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_message = False

    def timeout_keep_alive_handler(self) -> None:
        # The timer is left to run while requests are answered here: setting it anew for each costs more.
        idle = self.loop.time() - self._answered_at
        if self._held or self._in_thread or idle < self.timeout_keep_alive:
            self._wait_for_next(max(self.timeout_keep_alive - idle, 1))
        else:
            super().timeout_keep_alive_handler()

    def _wait_for_next(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection, once what has begun on it is answered."""
        self._ending = True
        if self._in_thread:
            return
        if self._held:
            super().data_received(self._take_held())
        super().shutdown()
