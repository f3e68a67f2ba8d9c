"""Every room's tables, imported: what the migrations are compared with."""

from app.access.models import ApiKey, SigningKey
from app.datasets.models import Dataset, DatasetContract, DatasetVersion, QuarantineRelease
from app.events.models import Event
from app.http.idempotency import IdempotencyRecord
from app.monitoring.models import Feedback
from app.registry.models import Alias, Model, ModelVersion
from app.serving.batch_models import BatchPart, BatchPrediction
from app.serving.models import Deployment, DeploymentSlot, PredictionCount, PredictionSegment
from app.training.models import Fact, LogLine, ReceiptKey, TrainingRun, Trial

__all__ = [
    "Alias",
    "ApiKey",
    "BatchPart",
    "BatchPrediction",
    "Dataset",
    "DatasetContract",
    "DatasetVersion",
    "Deployment",
    "DeploymentSlot",
    "Event",
    "Fact",
    "Feedback",
    "IdempotencyRecord",
    "LogLine",
    "Model",
    "ModelVersion",
    "PredictionCount",
    "PredictionSegment",
    "QuarantineRelease",
    "ReceiptKey",
    "SigningKey",
    "TrainingRun",
    "Trial",
]
