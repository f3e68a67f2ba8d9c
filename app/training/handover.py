"""The files by which a worker and the child process of a fit hand over to each other."""

REQUEST, RESULT, ERROR, MODEL = "request.json", "result.json", "error.json", "model.joblib"
