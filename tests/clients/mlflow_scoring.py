"""MLflow's client of a scoring server, which knows no keys."""

import json
import sys
from typing import Any

import pandas as pd  # type: ignore[import-not-found, import-untyped, unused-ignore] # an environment of its own
from mlflow.pyfunc.scoring_server.client import (  # type: ignore[import-not-found] # see above
    ScoringServerClient,
)

asked = json.load(sys.stdin)
client = ScoringServerClient(asked["host"], asked["port"])
client.wait_server_ready(timeout=10)
frame = pd.DataFrame(asked["rows"])


def refusal(data: Any, **more: Any) -> str:
    try:
        client.invoke(data, **more)
    except Exception as error:  # the client raises no other
        return str(error)
    raise AssertionError("it was not refused")


answer = client.invoke(frame)
json.dump(
    {
        "version": client.get_version(),
        "frame": answer,
        "table": answer.get_predictions()[0].tolist(),
        "array": answer.get_predictions("ndarray").tolist(),
        "list": client.invoke(asked["rows"])["predictions"],
        "text": client.invoke(json.dumps({"dataframe_records": asked["rows"]}))["predictions"],
        "no_params": client.invoke(frame, params={})["predictions"],
        "refused": refusal(frame.assign(distance=2.9)),
        "refused_params": refusal(frame, params={"threshold": 0.5}),
    },
    sys.stdout,
)
