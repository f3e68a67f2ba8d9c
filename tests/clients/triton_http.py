"""Triton's HTTP clients, sync and asyncio, with JSON and binary tensors and each compression."""

import asyncio
import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton  # type: ignore[import-not-found] # lives in an environment of its own
import tritonclient.http.aio as triton_aio  # type: ignore[import-not-found] # see above
from tritonclient.utils import (  # type: ignore[import-not-found] # see above
    InferenceServerException,
    triton_to_np_dtype,
)

asked = json.load(sys.stdin)
url, model, rows = asked["url"], asked["model"], asked["rows"]
headers = {"Authorization": f"Bearer {asked['key']}"}
OUTPUTS = ["prediction", "probabilities"]
FORMS = [
    {"binary": binary, "named": named, "compression": compression}
    for binary in (True, False)
    for named in (True, False)
    for compression in (None, "gzip", "deflate")
]


def make_inputs(metadata: dict[str, Any], *, binary: bool) -> list[Any]:
    """One tensor for each column, in the datatypes that the server names."""
    inputs = []
    for column in metadata["inputs"]:
        values = [row.get(column["name"]) for row in rows]
        if column["datatype"] == "FP64":
            values = [np.nan if value is None else value for value in values]
        array = np.array(values, triton_to_np_dtype(column["datatype"])).reshape(-1, 1)
        tensor = triton.InferInput(column["name"], list(array.shape), column["datatype"])
        inputs.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return inputs


def options(module: Any, metadata: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
    outputs = [module.InferRequestedOutput(name, binary_data=form["binary"]) for name in OUTPUTS]
    return {
        "model_name": model,
        "inputs": make_inputs(metadata, binary=form["binary"]),
        "outputs": outputs if form["named"] else None,
        "request_id": "order-17",
        "request_compression_algorithm": form["compression"],
        "response_compression_algorithm": form["compression"],
        "headers": dict(headers),
    }


def outcome(result: Any) -> dict[str, Any]:
    response = result.get_response()
    return {
        "predictions": result.as_numpy("prediction")[:, 0].tolist(),
        "probabilities": result.as_numpy("probabilities").tolist(),
        "classes": result.get_output("probabilities")["parameters"]["classes"],
        "prediction_ids": response["parameters"]["prediction_ids"],
        "version": response["model_version"],
        "id": response["id"],
    }


def refusal(call: Any, *arguments: Any, **named: Any) -> list[str]:
    try:
        call(*arguments, **named)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    raise AssertionError("it was not refused")


def try_sync() -> dict[str, Any]:
    client = triton.InferenceServerClient(url)
    metadata = client.get_model_metadata(model, headers=headers)
    wrong = make_inputs(metadata, binary=True)[1:]
    told = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "server": client.get_server_metadata(),
        "model_ready": client.is_model_ready(model, headers=headers),
        "version_ready": client.is_model_ready(model, "1", headers=headers),
        "nobody_ready": client.is_model_ready("nobody", headers=headers),
        "metadata": metadata,
        "version_metadata": client.get_model_metadata(model, "2", headers=headers),
        "config": client.get_model_config(model, headers=headers),
        "answers": [outcome(client.infer(**options(triton, metadata, form))) for form in FORMS],
        "version_answer": outcome(client.infer(**options(triton, metadata, FORMS[0]), model_version="2")),
        "async_answer": outcome(client.async_infer(**options(triton, metadata, FORMS[0])).get_result()),
        "index": client.get_model_repository_index(headers=headers),
        "statistics": client.get_inference_statistics(model, headers=headers),
        "all_statistics": client.get_inference_statistics(headers=headers),
        "load": client.load_model(model, headers=headers),
        "unload": refusal(client.unload_model, model, headers=headers),
        "missing": refusal(client.infer, model, wrong, headers=dict(headers)),
        "unknown": refusal(client.get_model_metadata, "nobody", headers=headers),
        "keyless": refusal(client.get_model_metadata, model),
    }
    client.close()
    return told


async def try_asyncio() -> dict[str, Any]:
    async with triton_aio.InferenceServerClient(url) as client:
        metadata = await client.get_model_metadata(model, headers=headers)
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(model, headers=headers),
            "metadata": metadata,
            "answers": [outcome(await client.infer(**options(triton_aio, metadata, form))) for form in FORMS],
            "index": await client.get_model_repository_index(headers=headers),
        }


json.dump({"sync": try_sync(), "asyncio": asyncio.run(try_asyncio())}, sys.stdout)
