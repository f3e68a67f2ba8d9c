"""KServe's REST client, in version 1 and 2 of its protocol."""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import (  # type: ignore[import-not-found] # lives in an environment of its own
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

asked = json.load(sys.stdin)
url, model, rows = asked["url"], asked["model"], asked["rows"]
headers = {"Authorization": f"Bearer {asked['key']}"}
DTYPES = {"INT64": np.int64, "FP64": np.float64, "BOOL": np.bool_, "BYTES": np.object_}


def make_request(metadata: dict[str, Any], *, binary: bool) -> InferRequest:
    inputs = []
    for column in metadata["inputs"]:
        values = [row.get(column["name"]) for row in rows]
        tensor = InferInput(column["name"], [len(rows), 1], column["datatype"])
        if binary:
            array: Any = np.array(values, DTYPES[column["datatype"]]).reshape(-1, 1)
            tensor.set_data_from_numpy(array, binary_data=True)
        else:
            tensor.data = values
        inputs.append(tensor)
    parameters = {"binary_data_output": True} if binary else None
    return InferRequest(model_name=model, infer_inputs=inputs, request_id="order-17", parameters=parameters)


def outcome(response: Any) -> dict[str, Any]:
    prediction, probabilities = response.outputs
    return {
        "predictions": prediction.as_numpy()[:, 0].tolist(),
        "probabilities": probabilities.as_numpy().tolist(),
        "prediction_ids": response.parameters["prediction_ids"],
        "id": response.id,
    }


async def try_version_1() -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        return {
            "live": await client.is_server_live(url),
            "model_ready": await client.is_model_ready(url, model, headers=headers),
            "answer": await client.infer(url, {"instances": rows}, model, headers=headers),
        }


async def try_version_2() -> dict[str, Any]:
    metadata = httpx.get(f"{url}/v2/models/{model}", headers=headers).json()
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        told = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, model, headers=headers),
            "nobody_ready": await client.is_model_ready(url, "nobody", headers=headers),
        }
        for name, binary in (("json", False), ("binary", True)):
            request = make_request(metadata, binary=binary)
            told[name] = outcome(await client.infer(url, request, model, headers=dict(headers)))
        try:
            await client.infer(url, {"inputs": []}, model, headers=headers)
        except httpx.HTTPStatusError as error:
            told["refused"] = str(error)
        return told


async def try_both() -> dict[str, Any]:
    return {"v1": await try_version_1(), "v2": await try_version_2()}


json.dump(asyncio.run(try_both()), sys.stdout)
