"""FastAPI + joblib + pandas, as one writes it by hand: ``python by_hand.py FOLDER PORT``."""

import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

folder, port = sys.argv[1:]
model = joblib.load(Path(folder, "model.joblib"))
app = FastAPI()


class Instance(BaseModel):
    number_0: float | None
    number_1: float | None
    number_2: float | None
    number_3: float | None
    number_4: float | None
    number_5: float | None
    count_0: int | None
    count_1: int | None
    category_0: str | None
    category_1: str | None
    category_2: str | None
    category_3: str | None
    category_4: str | None
    category_5: str | None


class Request(BaseModel):
    instances: list[Instance]


class Answer(BaseModel):
    predictions: list[int]
    probabilities: list[list[float]]


@app.post("/predict")
def predict(request: Request) -> Answer:
    rows = pd.DataFrame([instance.model_dump() for instance in request.instances]).fillna(np.nan)
    probabilities = model.predict_proba(rows)
    return Answer(predictions=probabilities.argmax(axis=1).tolist(), probabilities=probabilities.tolist())


uvicorn.run(app, port=int(port), access_log=False, log_level="warning")
