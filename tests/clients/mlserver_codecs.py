"""What MLServer's codecs write, sent as its documentation sends it, and read back with them."""

import json
import sys
import urllib.request
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped] # lives in an environment of its own
from mlserver.codecs import (  # type: ignore[import-not-found] # so does MLServer
    Base64Codec,
    DatetimeCodec,
    NumpyCodec,
    NumpyRequestCodec,
    PandasCodec,
    StringCodec,
)
from mlserver.codecs.json import encode_to_json_bytes  # type: ignore[import-not-found] # see above
from mlserver.types import (  # type: ignore[import-not-found] # see above
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    RequestOutput,
)

asked = json.load(sys.stdin)


def call(path: str, body: bytes | None = None) -> bytes:
    headers = {"Authorization": f"Bearer {asked['key']}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{asked['url']}/v2/models/{path}", body, headers)  # noqa: S310 - http only
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - see above
        content: bytes = answer.read()
        return content


def infer(model: str, request: InferenceRequest) -> InferenceResponse:
    body = encode_to_json_bytes(request.model_dump(mode="json"))
    return InferenceResponse.model_validate_json(call(f"{model}/infer", body))


def outcome(response: InferenceResponse) -> dict[str, Any]:
    prediction, probabilities = response.outputs
    return {
        "predictions": NumpyCodec.decode_output(prediction)[:, 0].tolist(),
        "probabilities": NumpyCodec.decode_output(probabilities).tolist(),
        "prediction_ids": response.parameters.prediction_ids,
    }


def try_frame(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As data frames go there and back."""
    told = []
    for use_bytes in (True, False):
        request = PandasCodec.encode_request(pd.DataFrame(rows), use_bytes=use_bytes)
        frame = PandasCodec.decode_response(infer(asked["model"], request))
        told.append(frame.to_dict("list"))
    return told


def try_columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One codec for each column."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    inputs = [
        NumpyCodec.encode_input("distance", np.array(columns["distance"])),
        NumpyCodec.encode_input("wind", np.array(columns["wind"], float)),
        NumpyCodec.encode_input("international", np.array(columns["international"])),
        StringCodec.encode_input("carrier", columns["carrier"], use_bytes=False),
        DatetimeCodec.encode_input("scheduled", columns["scheduled"], use_bytes=False),
    ]
    plain = outcome(infer(asked["model"], InferenceRequest(inputs=inputs)))
    inputs[3] = Base64Codec.encode_input("carrier", [text.encode() for text in columns["carrier"]])
    return {"plain": plain, "base64": outcome(infer(asked["model"], InferenceRequest(inputs=inputs)))}


def try_matrix(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One array for a model whose columns are all numbers."""
    request = NumpyRequestCodec.encode_request(pd.DataFrame(rows).to_numpy(float))
    told = outcome(infer(asked["numeric_model"], request))
    request.outputs = [RequestOutput(name="probabilities")]
    response = infer(asked["numeric_model"], request)
    return told | {"only_probabilities": NumpyRequestCodec.decode_response(response).tolist()}


def main() -> dict[str, Any]:
    metadata = MetadataModelResponse.model_validate_json(call(asked["model"]))
    return {
        "metadata": [tensor.name for tensor in metadata.inputs],
        "frames": try_frame(asked["rows"]),
        "columns": try_columns(asked["complete_rows"]),
        "matrix": try_matrix(asked["numeric_rows"]),
    }


json.dump(main(), sys.stdout)
