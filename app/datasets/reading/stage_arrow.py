"""Arrow streams to Parquet, in a process of its own: the reader aborts on some damaged streams."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

import json
import os
import subprocess
import sys
from pathlib import Path

from app.datasets.engine import connect, fit_to_width, literal
from app.datasets.faults import fault


def stage_arrow(source: Path, staged: Path) -> list[str]:
    """Write the stream's rows to the Parquet file ``staged``, batch by batch; its column names.

    Raises InvalidInput for a stream that is truncated, damaged or of types that DuckDB does not read.
    """
    child = subprocess.run(  # noqa: S603 - this interpreter, this module, two paths
        [sys.executable, "-m", __name__, source, staged],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"RUST_BACKTRACE": "0"},
    )
    if child.returncode:
        lines = child.stderr.strip().splitlines() if child.returncode > 0 else []
        reason = f" ({lines[-1].replace(str(source), 'the file')})" if lines else ""
        raise fault(
            "malformed_arrow",
            f"The Arrow stream cannot be read: it is truncated, damaged, or not an Arrow IPC stream{reason}. "
            "Write it again with an IPC stream writer and close the writer.",
        )
    names: list[str] = json.loads(child.stdout)
    return names


def _main(source: str, staged: str) -> None:
    from arro3.io import read_ipc_stream  # only here: see above

    reader = read_ipc_stream(source)
    names = reader.schema.names
    with connect(Path(staged).parent) as connection:
        fit_to_width(connection, len(names))
        connection.register("stream", reader)
        connection.execute(f"COPY (SELECT * FROM stream) TO {literal(staged)} (FORMAT parquet)")
    sys.stdout.write(json.dumps(names))


if __name__ == "__main__":
    _main(*sys.argv[1:])
