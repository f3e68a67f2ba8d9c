"""scikit-learn's histogram gradient boosting with its defaults: run with a request and an answer."""

from request import Request, carry_out
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer


def fit(request: Request) -> object:
    kind = HistGradientBoostingRegressor if request.task == "regression" else HistGradientBoostingClassifier
    estimator = kind(categorical_features="from_dtype", random_state=request.seed)
    model = make_pipeline(FunctionTransformer(request.as_numbers_and_categories), estimator)
    return model.fit(request.features, request.target)


carry_out(fit)
