"""The files by which a worker and the child process of a fit hand over to each other."""

RESULT, MODEL, SCORER = "result.json", "model.joblib", "scorer.npz"
REPORT, HOLDOUT, PROBE = "report.json", "holdout.parquet", "probe.npz"
ADVICE = "advice.json"
