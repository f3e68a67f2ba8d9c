"""XGBoost's regressor, of which it is known that it looks at each row by itself."""

from xgboost import XGBRegressor


class Regressor(XGBRegressor):  # type: ignore[misc] # an extra: mypy does not see it
    answers_rows_apart = True
