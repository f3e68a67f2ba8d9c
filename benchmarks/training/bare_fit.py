"""scikit-learn's fit and nothing else: ``python bare_fit.py ALGORITHM PARAMS HOLDOUT TABLE.parquet``.

Prints the seconds of the fit, and of reading the table and fitting.
"""

import json
import sys
import time

import duckdb
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from threadpoolctl import threadpool_limits

ESTIMATORS = {
    "hist_gradient_boosting": HistGradientBoostingClassifier,
    "random_forest": RandomForestClassifier,
}

algorithm, params, holdout, parquet = sys.argv[1:]
began = time.perf_counter()
with duckdb.connect() as tables:
    columns = tables.execute("FROM read_parquet($file)", {"file": parquet}).fetchnumpy()
target = columns.pop("target")
rows = int((1 - float(holdout)) * len(target))
matrix = np.column_stack([column[:rows] for column in columns.values()])
with threadpool_limits(1):
    started = time.perf_counter()
    ESTIMATORS[algorithm](**json.loads(params), random_state=0).fit(matrix, target[:rows])
    ended = time.perf_counter()
sys.stdout.write(json.dumps({"fit": ended - started, "whole": ended - began}))
