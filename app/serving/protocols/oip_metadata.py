"""What the Open Inference Protocol tells of a model: its metadata, configuration and statistics."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric

from app.columns import ColumnType
from app.registry.signature import Feature, Signature
from app.serving.protocols.oip import PREDICTION_ID, Outcome, output_tensor, usual_outputs
from app.serving.protocols.oip_tensors import datatype_of

PLATFORM = "sklearn_pipeline"


def describe_inputs(signature: Signature) -> list[dict[str, Any]]:
    """The model's inputs: one tensor for each column, -1 being the number of rows."""
    return [
        {
            "name": feature.name,
            "datatype": datatype_of(feature),
            "shape": [-1, 1],
            "parameters": {"nullable": feature.nullable, **_content_type_of(feature)},
        }
        for feature in signature.features
    ]


def _content_type_of(feature: Feature) -> dict[str, str]:
    match feature.type:
        case ColumnType.STRING:
            return {"content_type": "str"}
        case ColumnType.DATE | ColumnType.DATETIME:
            return {"content_type": "datetime"}
    return {}


def describe_outputs(signature: Signature) -> list[dict[str, Any]]:
    """The outputs that are sent where none are asked for, and the ids of the predictions."""
    nobody = Outcome("", 0, (), None, ())
    tensors = [output_tensor(name, signature, nobody) for name in (*usual_outputs(signature), PREDICTION_ID)]
    return [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": [-1, *tensor.shape[1:]],
            "parameters": tensor.parameters,
        }
        for tensor in tensors
    ]


def describe_config(model: str, signature: Signature, max_rows: int) -> dict[str, Any]:
    """The model's configuration in the words of Triton's model configuration extension."""
    return {
        "name": model,
        "platform": PLATFORM,
        "backend": "roundhouse",
        "max_batch_size": max_rows,
        "input": [
            {
                "name": tensor["name"],
                "data_type": _config_datatype(tensor["datatype"]),
                "dims": tensor["shape"][1:],
                "optional": tensor["parameters"]["nullable"],
            }
            for tensor in describe_inputs(signature)
        ],
        "output": [
            {
                "name": tensor["name"],
                "data_type": _config_datatype(tensor["datatype"]),
                "dims": tensor["shape"][1:],
            }
            for tensor in describe_outputs(signature)
        ],
    }


def _config_datatype(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


# ── Statistics ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Statistics:
    """Answered rows; requests that were answered and that were refused, and the seconds they took in all."""

    rows: float = 0
    answered: float = 0
    answered_seconds: float = 0.0
    refused: float = 0
    refused_seconds: float = 0.0

    def describe(self, model: str, version: int) -> dict[str, Any]:
        def duration(count: float, seconds: float) -> dict[str, int]:
            return {"count": int(count), "ns": round(seconds * 1e9)}

        return {
            "name": model,
            "version": str(version),
            "inference_count": int(self.rows),
            "execution_count": int(self.answered),
            "inference_stats": {
                "success": duration(self.answered, self.answered_seconds),
                "fail": duration(self.refused, self.refused_seconds),
            },
            "batch_stats": [],
        }


def read_statistics(metrics: Iterable[Metric]) -> dict[tuple[str, int], Statistics]:
    """The statistics of each model and version number, of all that the server measures."""
    found: dict[tuple[str, int], Statistics] = defaultdict(Statistics)
    for metric in metrics:
        if metric.name not in ("roundhouse_predictions", "roundhouse_predict_seconds"):
            continue
        for sample in metric.samples:
            statistics = found[sample.labels["model"], int(sample.labels["version"])]
            good = sample.labels.get("code") == "200"
            match sample.name:
                case "roundhouse_predictions_total":
                    statistics.rows += sample.value
                case "roundhouse_predict_seconds_count" if good:
                    statistics.answered += sample.value
                case "roundhouse_predict_seconds_sum" if good:
                    statistics.answered_seconds += sample.value
                case "roundhouse_predict_seconds_count":
                    statistics.refused += sample.value
                case "roundhouse_predict_seconds_sum":
                    statistics.refused_seconds += sample.value
    return found
