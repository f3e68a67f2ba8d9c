"""Parameters that the trees of the catalogue have in common: libraries give some of them other names."""

from app.training.algorithms.algorithm import Parameter, SearchRange

TREES = Parameter("n_estimators", "integer", 100, "The number of trees.", 1, 2000)
LEARNING_RATE = Parameter(
    "learning_rate",
    "number",
    0.1,
    "The weight of each tree.",
    0.001,
    1.0,
    search=SearchRange(0.01, 0.3, log=True),
)
MAX_DEPTH = Parameter(
    "max_depth", "integer", None, "The depth limit of a tree; null for none.", 1, 100, nullable=True
)
MAX_FEATURES = Parameter(
    "max_features",
    "number",
    None,
    "The share of the encoded features looked at for each split; null for their square root "
    "(classification) or a third (regression).",
    0.01,
    1.0,
    nullable=True,
    search=SearchRange(0.1, 1.0),
)
SUBSAMPLE = Parameter(
    "subsample",
    "number",
    1.0,
    "The share of the rows that each tree learns from.",
    0.01,
    1.0,
    search=SearchRange(0.5, 1.0),
)
COLSAMPLE_BYTREE = Parameter(
    "colsample_bytree",
    "number",
    1.0,
    "The share of the encoded features that each tree looks at.",
    0.01,
    1.0,
    search=SearchRange(0.3, 1.0),
)


def boosting_rounds(name: str) -> Parameter:
    return Parameter(
        name,
        "integer",
        100,
        "The number of boosting rounds.",
        1,
        5000,
        search=SearchRange(50, 500, log=True),
    )


def most_leaves(name: str) -> Parameter:
    return Parameter(
        name, "integer", 31, "The most leaves of a tree.", 2, 1024, search=SearchRange(4, 128, log=True)
    )


def leaf_rows(name: str, default: int, most: int) -> Parameter:
    """``most`` is the most that a search tries."""
    return Parameter(
        name,
        "integer",
        default,
        "The fewest rows in a leaf.",
        1,
        10_000,
        search=SearchRange(1, most, log=True),
    )


def leaf_penalty(name: str, default: float, search: SearchRange) -> Parameter:
    return Parameter(name, "number", default, "The L2 penalty on leaf values.", 0.0, 1e6, search=search)
