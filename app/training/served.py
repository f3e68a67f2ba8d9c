"""How a fitted pipeline is served: compiled where that answers as scikit-learn does, else by scikit-learn."""

import traceback
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from app.registry.runtime import Runtime
from app.registry.signature import Signature
from app.serving.compile import NotCompilable, compile_pipeline
from app.serving.compiled import CompiledPipeline, CompiledScorer
from app.serving.parity import check_parity
from app.training.fitting import Score, native_score


@dataclass(frozen=True, slots=True)
class Served:
    """What answers for a fitted pipeline, and why it has no ``compiled`` form, where it has none."""

    score: Score
    compiled: CompiledPipeline | None
    reason: str | None

    @property
    def runtime(self) -> Runtime:
        return Runtime.NATIVE if self.compiled is None else Runtime.COMPILED


def serve(pipeline: Pipeline, signature: Signature, rows: NDArray[np.float64]) -> Served:
    """Compile the pipeline, if that can be done and agrees with it on n > 0 ``rows`` of its matrix."""
    try:
        compiled = compile_pipeline(pipeline, signature)
        reason = check_parity(pipeline, signature, compiled, rows)
        if reason is None:
            return Served(CompiledScorer(compiled).score, compiled, None)
    except NotCompilable as refused:
        reason = str(refused)
    except Exception as error:  # whatever it is, the model is good, and scikit-learn can serve it
        traceback.print_exc()
        reason = f"the pipeline could not be compiled: {type(error).__name__}: {error}"
    return Served(native_score(pipeline, signature), None, reason)
