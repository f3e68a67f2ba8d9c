"""Answers checked, then load: a server's figures beside the floor's of the same minute."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from data import Row
from load import Load, Wrk
from servers import Server

BULK_ROWS = 1000
BULK_CONNECTIONS = 4


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds: requests a second, latencies in microseconds.

    ``floor`` is the floor's rate; ``ratio`` and ``alone_ratio`` compare the rate, and the p50 at one
    connection, with the floor's in the same round. ``bulk`` is rows a second in requests of BULK_ROWS.
    ``wrong`` rows differ from scikit-learn, of ``checked`` each asked for alone; ``wrong_bulk`` of the same
    rows in one request.
    """

    rate: float
    floor: float
    ratio: float
    p50: float
    p99: float
    alone_p50: float
    alone_p99: float
    alone_ratio: float
    bulk: float | None
    wrong: int
    wrong_bulk: int
    checked: int
    failed: int


@dataclass(frozen=True)
class Bench:
    """What every server is measured with."""

    wrk: Wrk
    floor: Server
    rows: list[Row]
    seconds: float
    rounds: int
    connections: int

    def measure(self, server: Server, expected: Sequence[float] | None, *, bulk: bool = True) -> Figures:
        """The figures of a server that answers; ``expected`` is None for one that does not predict."""
        wrong = server.count_wrong(self.rows, expected, together=1) if expected else 0
        wrong_bulk = server.count_wrong(self.rows, expected, together=len(self.rows)) if expected else 0
        together: list[tuple[Load, Load]] = []
        alone: list[tuple[Load, Load]] = []
        bulks: list[float] = []
        for _ in range(self.rounds):
            together.append((self.load(self.floor, self.connections), self.load(server, self.connections)))
            alone.append((self.load(self.floor, 1), self.load(server, 1)))
            if bulk:
                bulks.append(self.bulk_rate(server))
        return Figures(
            rate=median(load.rate for _, load in together),
            floor=median(floor.rate for floor, _ in together),
            ratio=median(load.rate / floor.rate for floor, load in together),
            p50=median(load.p50 for _, load in together),
            p99=median(load.p99 for _, load in together),
            alone_p50=median(load.p50 for _, load in alone),
            alone_p99=median(load.p99 for _, load in alone),
            alone_ratio=median(load.p50 / floor.p50 for floor, load in alone),
            bulk=median(bulks) if bulk else None,
            wrong=wrong,
            wrong_bulk=wrong_bulk,
            checked=len(self.rows) if expected else 0,
            failed=sum(load.failed for _, load in together + alone),
        )

    def load(self, server: Server, connections: int, wrk: Wrk | None = None) -> Load:
        """Single rows over so many connections."""
        batches = [[row] for row in self.rows]
        return (wrk or self.wrk).run(server, batches, connections=connections, seconds=self.seconds)

    def bulk_rate(self, server: Server) -> float:
        """Rows a second, in requests of BULK_ROWS."""
        rows = self.rows * (BULK_ROWS // len(self.rows) + 1)
        batches = [(rows[start:] + rows[:start])[:BULK_ROWS] for start in range(8)]
        load = self.wrk.run(server, batches, connections=BULK_CONNECTIONS, seconds=self.seconds)
        return load.rate * BULK_ROWS
