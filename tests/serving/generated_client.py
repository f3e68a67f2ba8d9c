"""Generates a client from a model's document, and predicts and tells the outcome with it.

Runs in an environment of its own: ``python generated_client.py DOCUMENT FOLDER URL KEY`` prints the answers.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

file, folder, url, key = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
target = folder / "generated"
generate = ["openapi-python-client", "generate", "--meta", "none", "--fail-on-warning"]
told = subprocess.run(
    [*generate, "--path", file, "--output-path", target], capture_output=True, text=True, check=False
)
if told.returncode:
    sys.exit(told.stdout + told.stderr)
sys.path.insert(0, str(folder))


def load_operation(tag: str) -> ModuleType:
    """The one operation of a tag."""
    (path,) = (found for found in (target / "api" / tag).iterdir() if not found.name.startswith("_"))
    return importlib.import_module(f"generated.api.{tag}.{path.stem}")


models = importlib.import_module("generated.models")
client = importlib.import_module("generated").AuthenticatedClient(base_url=url, token=key)
schemas = json.loads(file.read_text())["components"]["schemas"]

(name,) = (name for name in schemas if name.endswith("-PredictRequest"))
(sent,) = schemas[name]["examples"]
(Request,) = (getattr(models, name) for name in dir(models) if name.endswith("PredictRequest"))
answer = load_operation("models_in_service").sync(client=client, body=Request.from_dict(sent))

(item,) = schemas["FeedbackBatch"]["examples"][0]["items"]
outcome = models.FeedbackBatch.from_dict({"items": [item | {"prediction_id": answer.prediction_ids[0]}]})
receipt = load_operation("feedback").sync(client=client, body=outcome)
json.dump({"sent": sent, "answer": answer.to_dict(), "receipt": receipt.to_dict()}, sys.stdout)
