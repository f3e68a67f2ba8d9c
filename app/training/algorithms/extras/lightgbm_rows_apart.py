"""LightGBM's estimators, of which it is known that they look at each row by itself."""

from lightgbm import LGBMClassifier, LGBMRegressor


class Classifier(LGBMClassifier):  # type: ignore[misc] # an extra: mypy does not see it
    answers_rows_apart = True


class Regressor(LGBMRegressor):  # type: ignore[misc] # as above
    answers_rows_apart = True
