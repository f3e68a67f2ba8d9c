"""How a model version is served."""

from enum import StrEnum


class Runtime(StrEnum):
    """By its compiled pipeline, in microseconds, or by scikit-learn itself."""

    COMPILED = "compiled"
    NATIVE = "native"
