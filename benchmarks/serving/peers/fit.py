"""Fit the same model as Roundhouse does, in a peer's environment.

    python fit.py TRAINING.csv CHECK.csv ALGORITHM FOLDER

Leaves ``model.joblib`` in the folder, and ``expected.json``: the positive class's probability for each row
of the check file.
"""

import json
import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ESTIMATORS = {
    "logistic_regression": LogisticRegression(max_iter=1000, random_state=0),
    "hist_gradient_boosting": HistGradientBoostingClassifier(
        max_iter=300, early_stopping=False, random_state=0
    ),
    "random_forest": RandomForestClassifier(200, min_samples_leaf=5, n_jobs=1, random_state=0),
}

training, check, algorithm, folder = sys.argv[1:]
rows = pd.read_csv(training, float_precision="round_trip")
numeric = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
categorical = OneHotEncoder(
    handle_unknown="infrequent_if_exist", min_frequency=0.01, max_categories=50, sparse_output=False
)
pipeline = make_pipeline(
    make_column_transformer(
        (numeric, make_column_selector(dtype_include="number")),
        (categorical, make_column_selector(dtype_exclude="number")),
    ),
    ESTIMATORS[algorithm],
)
pipeline.fit(rows.drop(columns="target"), rows["target"])
joblib.dump(pipeline, Path(folder, "model.joblib"))
asked = pd.read_csv(check, float_precision="round_trip").drop(columns="target")
Path(folder, "expected.json").write_text(json.dumps(pipeline.predict_proba(asked)[:, 1].tolist()))
