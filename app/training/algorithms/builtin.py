"""The algorithms that every installation has."""

from app.registry.runtime import Runtime
from app.registry.signature import Task
from app.training.algorithms.algorithm import (
    CLASSIFICATION,
    EVERY_TASK,
    Algorithm,
    Parameter,
    SearchChoices,
    SearchRange,
)
from app.training.algorithms.tree_parameters import (
    LEARNING_RATE,
    MAX_DEPTH,
    MAX_FEATURES,
    SUBSAMPLE,
    TREES,
    boosting_rounds,
    leaf_penalty,
    leaf_rows,
    most_leaves,
)

CALIBRATION_FOLDS = 3
"""A support vector machine has no probabilities of its own: they are fitted across so many folds, and each
class needs a row in each."""

EARLY_STOPPING_ROWS = 10_000
"""Of fewer, a tenth says too little about when to stop: it ended neural networks early on each of
scikit-learn's bundled tables, at up to six times the log loss."""

_BUILDERS = "app.training.algorithms.estimators"

_CLASS_WEIGHT = Parameter(
    "class_weight",
    "string",
    None,
    "Classifiers only: `balanced` weighs every class alike, however rare; null weighs every row alike.",
    choices=("balanced",),
    nullable=True,
)


def _max_iter(default: int) -> Parameter:
    return Parameter("max_iter", "integer", default, "The most iterations of the solver.", 10, 100_000)


def _inverse_penalty(default: float, lowest: float, highest: float) -> Parameter:
    return Parameter(
        "C",
        "number",
        default,
        "The inverse of the L2 penalty: smaller values hold the model closer to a constant.",
        1e-6,
        1e6,
        search=SearchRange(lowest, highest, log=True),
    )


def _penalty(default: float, description: str, lowest: float, highest: float) -> Parameter:
    return Parameter(
        "alpha",
        "number",
        default,
        f"{description}: greater values hold the weights closer to zero.",
        1e-6,
        1e6,
        search=SearchRange(lowest, highest, log=True),
    )


BUILTIN: dict[str, Algorithm] = {
    entry.id: entry
    for entry in (
        Algorithm(
            id="logistic_regression",
            title="logistic regression",
            tasks=CLASSIFICATION,
            parameters=(_inverse_penalty(1.0, 1e-4, 1e3), _CLASS_WEIGHT, _max_iter(1000)),
            builder=f"{_BUILDERS}:logistic_regression",
            choose_when="First, and wherever its score is near the best: it is fast, its probabilities are "
            "sound, and each weight can be read.",
            cost="low",
            scaling="linear in rows, columns and classes",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="ridge",
            title="ridge regression",
            tasks=(Task.REGRESSION,),
            parameters=(_penalty(1.0, "The L2 penalty", 1e-3, 1e4),),
            builder=f"{_BUILDERS}:ridge",
            choose_when="First, and wherever its score is near the best: it is fast, steady with columns "
            "that say the same, and each weight can be read.",
            cost="low",
            scaling="linear in rows, quadratic in columns",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="linear_regression",
            title="linear regression",
            tasks=(Task.REGRESSION,),
            parameters=(),
            builder=f"{_BUILDERS}:linear_regression",
            choose_when="Where the weights must be those of plain least squares; else ridge.",
            cost="low",
            scaling="linear in rows, quadratic in columns",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="elastic_net",
            title="elastic net",
            tasks=(Task.REGRESSION,),
            parameters=(
                _penalty(0.1, "The penalty", 1e-4, 10.0),
                Parameter(
                    "l1_ratio",
                    "number",
                    0.5,
                    "The share of the L1 penalty, which sets weights to zero; the rest is L2.",
                    0.0,
                    1.0,
                    search=SearchRange(0.0, 1.0),
                ),
                _max_iter(10_000),
            ),
            builder=f"{_BUILDERS}:elastic_net",
            choose_when="With many columns of which few matter: it leaves the others out.",
            cost="low",
            scaling="linear in rows and columns, more where columns are alike",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="linear_svm",
            title="linear support vector machine",
            tasks=EVERY_TASK,
            parameters=(_inverse_penalty(0.1, 1e-4, 1e2), _CLASS_WEIGHT, _max_iter(10_000)),
            builder=f"{_BUILDERS}:linear_svm",
            choose_when="With many columns and classes that a line divides; as a regression, where outliers "
            "of the target should not count for more.",
            cost="low",
            scaling="linear in rows and columns; as a classifier four fits",
            served=Runtime.COMPILED,
            class_rows=CALIBRATION_FOLDS,
        ),
        Algorithm(
            id="svm_rbf",
            title="support vector machine with an RBF kernel",
            tasks=EVERY_TASK,
            parameters=(
                _inverse_penalty(1.0, 1e-2, 1e3),
                Parameter(
                    "gamma",
                    "number",
                    None,
                    "How near two rows must be to count as alike: greater values, nearer. Null: the inverse "
                    "of the number of encoded features times their variance.",
                    1e-6,
                    1e3,
                    nullable=True,
                    search=SearchRange(1e-4, 1.0, log=True),
                ),
                Parameter(
                    "epsilon",
                    "number",
                    0.1,
                    "Regression only: the error that costs nothing, in standard deviations of the target.",
                    0.0,
                    10.0,
                ),
                Parameter(
                    "max_iter", "integer", 100_000, "The most iterations of the solver.", 100, 10_000_000
                ),
            ),
            builder=f"{_BUILDERS}:svm_rbf",
            choose_when="With numeric columns, up to some ten thousand rows, and a smooth, curved relation.",
            cost="high",
            scaling="quadratic to cubic in rows, linear in columns; as a classifier four fits; an answer "
            "takes time linear in rows too",
            class_rows=CALIBRATION_FOLDS,
            search_rows=20_000,
        ),
        Algorithm(
            id="gaussian_nb",
            title="Gaussian naive Bayes",
            tasks=CLASSIFICATION,
            parameters=(
                Parameter(
                    "var_smoothing",
                    "number",
                    0.1,
                    "The share of the greatest variance that is added to every variance: without it a single "
                    "category that a class did not show would rule the class out.",
                    1e-12,
                    100.0,
                    search=SearchRange(1e-3, 10.0, log=True),
                ),
            ),
            builder=f"{_BUILDERS}:gaussian_nb",
            choose_when="With few rows and columns that are nearly independent within a class; its classes "
            "are better than its probabilities, which are too sure.",
            cost="low",
            scaling="linear in rows and columns, one pass",
        ),
        Algorithm(
            id="decision_tree",
            title="decision tree",
            tasks=EVERY_TASK,
            parameters=(MAX_DEPTH, leaf_rows("min_samples_leaf", 20, 200)),
            builder=f"{_BUILDERS}:decision_tree",
            choose_when="Where people must be able to follow each answer as a list of questions; a forest or "
            "boosting scores better.",
            cost="low",
            scaling="linear in columns, slightly more than linear in rows",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="random_forest",
            title="random forest",
            tasks=EVERY_TASK,
            parameters=(TREES, MAX_DEPTH, leaf_rows("min_samples_leaf", 5, 50), MAX_FEATURES),
            builder=f"{_BUILDERS}:random_forest",
            choose_when="With curved relations and little wish to tune: its defaults are hard to spoil.",
            cost="medium",
            scaling="linear in trees, slightly more than linear in rows, with the square root of columns "
            "(classification) or a third of them (regression)",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="extra_trees",
            title="extremely randomised trees",
            tasks=EVERY_TASK,
            parameters=(TREES, MAX_DEPTH, leaf_rows("min_samples_leaf", 5, 50), MAX_FEATURES),
            builder=f"{_BUILDERS}:extra_trees",
            choose_when="As a random forest, where the columns are noisy: random splits smooth more, and fit "
            "faster.",
            cost="medium",
            scaling="as a random forest, with a smaller factor",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="gradient_boosting",
            title="gradient boosting",
            tasks=EVERY_TASK,
            parameters=(
                LEARNING_RATE,
                TREES,
                Parameter(
                    "max_depth", "integer", 3, "The depth limit of a tree.", 1, 100, search=SearchRange(1, 8)
                ),
                leaf_rows("min_samples_leaf", 20, 100),
                SUBSAMPLE,
            ),
            builder=f"{_BUILDERS}:gradient_boosting",
            choose_when="With up to some thousand rows, where exact split points gain over the histograms of "
            "hist_gradient_boosting.",
            cost="high",
            scaling="linear in trees, columns and classes, slightly more than linear in rows",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="hist_gradient_boosting",
            title="histogram gradient boosting",
            tasks=EVERY_TASK,
            parameters=(
                LEARNING_RATE,
                boosting_rounds("max_iter"),
                most_leaves("max_leaf_nodes"),
                MAX_DEPTH,
                leaf_rows("min_samples_leaf", 20, 100),
                leaf_penalty("l2_regularization", 0.0, SearchRange(0.0, 10.0)),
                Parameter(
                    "early_stopping",
                    "boolean",
                    False,
                    "Stop when a tenth of the training rows, kept aside, no longer gains.",
                ),
            ),
            builder=f"{_BUILDERS}:hist_gradient_boosting",
            choose_when="From some thousand rows on: usually the best score for its time, and columns that "
            "act together cost nothing extra.",
            cost="medium",
            scaling="linear in rounds, rows, columns and classes",
            served=Runtime.COMPILED,
        ),
        Algorithm(
            id="k_neighbors",
            title="k-nearest neighbours",
            tasks=EVERY_TASK,
            parameters=(
                Parameter(
                    "n_neighbors",
                    "integer",
                    15,
                    "The number of neighbours that vote.",
                    1,
                    1000,
                    search=SearchRange(3, 100, log=True),
                    at_most_rows=True,
                ),
                Parameter(
                    "weights",
                    "string",
                    "uniform",
                    "`uniform` counts each neighbour alike, `distance` nearer ones for more.",
                    choices=("uniform", "distance"),
                    search=SearchChoices(("uniform", "distance")),
                ),
            ),
            builder=f"{_BUILDERS}:k_neighbors",
            choose_when="With few columns and rows enough that similar ones are near; an answer can be shown "
            "by its neighbours.",
            cost="low",
            scaling="slightly more than linear in rows to fit; an answer takes time linear in rows where "
            "there are many columns",
            weighted=False,
            search_rows=100_000,
        ),
        Algorithm(
            id="mlp",
            title="neural network",
            tasks=EVERY_TASK,
            parameters=(
                Parameter(
                    "hidden_layers",
                    "integer",
                    1,
                    "The layers between features and answer.",
                    1,
                    5,
                    search=SearchRange(1, 2),
                ),
                Parameter(
                    "hidden_units",
                    "integer",
                    64,
                    "The units of each hidden layer.",
                    1,
                    1024,
                    search=SearchRange(16, 128, log=True),
                ),
                Parameter(
                    "alpha",
                    "number",
                    1.0,
                    "The L2 penalty, shared among the rows: greater values hold the weights closer to zero.",
                    0.0,
                    1e6,
                    search=SearchRange(1e-4, 100.0, log=True),
                ),
                Parameter(
                    "learning_rate_init",
                    "number",
                    0.005,
                    "The length of the first steps of the solver, Adam.",
                    1e-6,
                    1.0,
                    search=SearchRange(3e-4, 0.03, log=True),
                ),
                Parameter("max_iter", "integer", 1000, "The most passes over the rows.", 1, 10_000),
                Parameter(
                    "early_stopping",
                    "boolean",
                    None,
                    "Stop when a tenth of the training rows, kept aside, no longer gains; else when the "
                    f"training rows no longer do. Null: from {EARLY_STOPPING_ROWS:,} training rows on.",
                    nullable=True,
                ),
            ),
            builder=f"{_BUILDERS}:mlp",
            choose_when="With many rows and smooth relations among numeric columns; boosting is easier and "
            "usually better on mixed columns.",
            cost="medium",
            scaling="linear in passes, rows, and columns times units",
        ),
        Algorithm(
            id="dummy",
            title="baseline without features",
            tasks=EVERY_TASK,
            parameters=(),
            builder=f"{_BUILDERS}:dummy",
            choose_when="Only to compare with: it answers every row alike.",
            cost="low",
            scaling="linear in rows",
            served=Runtime.COMPILED,
        ),
    )
}
