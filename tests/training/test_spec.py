"""The training spec as it is asked for, recorded and read again."""

from app.training.router import NewTrainingRun
from app.training.spec import TrainingSpec


def test_a_recorded_spec_still_tells_what_was_left_open_for_a_search() -> None:
    asked = NewTrainingRun.model_validate(
        {"model": "m", "dataset": "d", "target": "y", "preparation": {"numeric": {"scale": "robust"}}}
    )
    spec = asked.spec()
    recorded = spec.model_dump(mode="json")
    again = TrainingSpec.model_validate(recorded)
    assert recorded["preparation"] == {"numeric": {"scale": "robust"}}
    assert again == spec
    assert again.preparation.numeric.model_fields_set == {"scale"}
    assert recorded["seed"] == 0, "all else is recorded with its defaults"
