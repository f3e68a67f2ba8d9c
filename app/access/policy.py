"""Who may do what: the permissions, the roles that carry them, and the policy of every route."""

from enum import StrEnum


class Permission(StrEnum):
    PUBLIC = "public"
    """No key needed."""
    DESCRIBE = "describe"
    """A model's public metadata."""
    PREDICT = "predict"
    """Predictions, feedback, and one's own predictions by id."""
    READ = "read"
    """Everything but keys."""
    DEVELOP = "develop"
    """Data and training."""
    OPERATE = "operate"
    """Promotion, rollback, monitors, policies, webhooks."""
    ADMINISTER = "administer"
    """Keys, deletion, settings."""


class Role(StrEnum):
    CLIENT = "client"
    VIEWER = "viewer"
    SCIENTIST = "scientist"
    ENGINEER = "engineer"
    ADMIN = "admin"


_client = frozenset({Permission.PUBLIC, Permission.DESCRIBE, Permission.PREDICT})
_viewer = frozenset({Permission.PUBLIC, Permission.DESCRIBE, Permission.READ})
_scientist = _client | _viewer | {Permission.DEVELOP}
_engineer = _scientist | {Permission.OPERATE}

GRANTS: dict[Role, frozenset[Permission]] = {
    Role.CLIENT: _client,
    Role.VIEWER: _viewer,
    Role.SCIENTIST: _scientist,
    Role.ENGINEER: _engineer,
    Role.ADMIN: _engineer | {Permission.ADMINISTER},
}

_P = Permission

POLICY: dict[tuple[str, str], tuple[Permission, ...]] = {
    # A route that is not here answers nobody. Where several permissions stand, one of them suffices.
    ("GET", "/livez"): (_P.PUBLIC,),
    ("GET", "/readyz"): (_P.PUBLIC,),
    ("GET", "/metrics"): (_P.PUBLIC,),
    ("POST", "/v1/keys"): (_P.ADMINISTER,),
    ("GET", "/v1/keys"): (_P.ADMINISTER,),
    ("DELETE", "/v1/keys/{key}"): (_P.ADMINISTER,),
    ("GET", "/v1/events"): (_P.READ,),
    ("GET", "/v1/signing-keys"): (_P.PUBLIC,),  # receipts are for people without a key, too
    ("POST", "/v1/datasets"): (_P.DEVELOP,),
    ("GET", "/v1/datasets"): (_P.READ,),
    ("GET", "/v1/datasets/{dataset}"): (_P.READ,),
    ("POST", "/v1/datasets/{dataset}/versions"): (_P.DEVELOP,),
    ("GET", "/v1/datasets/{dataset}/versions"): (_P.READ,),
    ("GET", "/v1/datasets/{dataset}/versions/{version}"): (_P.READ,),
    ("PATCH", "/v1/datasets/{dataset}"): (_P.DEVELOP,),
    ("PATCH", "/v1/datasets/{dataset}/versions/{version}"): (_P.DEVELOP,),
    ("POST", "/v1/datasets/{dataset}/versions/{version}:append"): (_P.DEVELOP,),
    ("POST", "/v1/datasets/{dataset}/versions/{version}:split"): (_P.DEVELOP,),
    ("POST", "/v1/datasets/{dataset}/versions/{version}:sample"): (_P.DEVELOP,),
    ("POST", "/v1/datasets/{dataset}/versions:from-feedback"): (_P.DEVELOP,),
    ("GET", "/v1/datasets/{dataset}/versions/{version}/preview"): (_P.READ,),
    ("GET", "/v1/datasets/{dataset}/versions/{version}/profile"): (_P.READ,),
    ("GET", "/v1/datasets/{dataset}/versions/{version}/content"): (_P.READ,),
    ("GET", "/v1/datasets/{dataset}/versions/{version}/diff/{other}"): (_P.READ,),
    ("GET", "/v1/datasets/{dataset}/contract"): (_P.READ,),
    ("GET", "/v1/datasets/{dataset}/contracts"): (_P.READ,),
    ("PUT", "/v1/datasets/{dataset}/contract"): (_P.DEVELOP,),
    ("POST", "/v1/datasets/{dataset}/contract:infer"): (_P.READ,),  # it changes nothing
    ("GET", "/v1/datasets/{dataset}/versions/{version}/report"): (_P.READ,),
    ("POST", "/v1/datasets/{dataset}/versions/{version}:check"): (_P.READ,),  # nor does this
    ("POST", "/v1/datasets/{dataset}/versions/{version}:accept"): (_P.OPERATE,),
    ("GET", "/v1/datasets/{dataset}/versions/{version}/lineage"): (_P.READ,),
    ("DELETE", "/v1/datasets/{dataset}"): (_P.ADMINISTER,),
    ("DELETE", "/v1/datasets/{dataset}/versions/{version}"): (_P.ADMINISTER,),
    ("POST", "/v1/datasets/{dataset}/versions/{version}:advise"): (_P.DEVELOP,),  # it takes a core
    ("GET", "/v1/algorithms"): (_P.READ,),
    ("POST", "/v1/training-runs"): (_P.DEVELOP,),
    ("GET", "/v1/training-runs"): (_P.READ,),
    ("POST", "/v1/training-runs:search"): (_P.READ,),  # it changes nothing
    ("POST", "/v1/model-versions:search"): (_P.READ,),  # nor does this
    ("GET", "/v1/training-runs/{run}"): (_P.READ,),
    ("PATCH", "/v1/training-runs/{run}"): (_P.DEVELOP,),
    ("GET", "/v1/training-runs/{run}/events"): (_P.READ,),
    ("GET", "/v1/training-runs/{run}/trials"): (_P.READ,),
    ("GET", "/v1/training-runs/{run}/logs"): (_P.READ,),
    ("POST", "/v1/training-runs/{run}:cancel"): (_P.DEVELOP,),
    ("GET", "/v1/models"): (_P.DESCRIBE,),
    ("GET", "/v1/models/{model}"): (_P.DESCRIBE,),
    ("GET", "/v1/models/{model}/openapi.json"): (_P.DESCRIBE,),
    ("GET", "/v1/models/{model}/compare"): (_P.READ,),
    ("GET", "/v1/models/{model}/versions"): (_P.READ,),
    ("GET", "/v1/models/{model}/versions/{version}"): (_P.READ,),
    ("GET", "/v1/models/{model}/versions/{version}/evaluation"): (_P.READ,),
    ("GET", "/v1/models/{model}/versions/{version}/card"): (_P.READ,),
    ("GET", "/v1/models/{model}/versions/{version}/suggestions"): (_P.READ,),
    ("GET", "/v1/models/{model}/versions/{version}/lineage"): (_P.READ,),
    ("POST", "/v1/models/{model}/versions/{version}:verify"): (_P.DEVELOP,),
    ("GET", "/v1/models/{model}/aliases"): (_P.READ,),
    ("PUT", "/v1/models/{model}/aliases/{alias}"): (_P.OPERATE,),
    ("DELETE", "/v1/models/{model}/aliases/{alias}"): (_P.OPERATE,),
    ("POST", "/v1/models/{model}:promote"): (_P.OPERATE,),
    ("POST", "/v1/models/{model}:rollback"): (_P.OPERATE,),
    ("GET", "/v1/models/{model}/deployments"): (_P.READ,),
    ("GET", "/v1/models/{model}/deployments/{deployment}"): (_P.READ,),
    ("POST", "/v1/models/{model}:predict"): (_P.PREDICT,),
    ("POST", "/v1/models/{model}/versions/{version}:predict"): (_P.PREDICT,),
    ("POST", "/v1/models/{model}/aliases/{alias}:predict"): (_P.PREDICT,),
    ("POST", "/v1/models/{model}/batch-predictions"): (_P.DEVELOP,),  # it reads data, and uses a worker
    ("GET", "/v1/batch-predictions"): (_P.READ,),
    ("GET", "/v1/batch-predictions/{batch}"): (_P.READ,),
    ("GET", "/v1/batch-predictions/{batch}/content"): (_P.READ,),
    ("POST", "/v1/batch-predictions/{batch}:cancel"): (_P.DEVELOP,),
    ("GET", "/v1/predictions/{prediction}"): (_P.PREDICT, _P.READ),
    ("POST", "/v1/predictions/{prediction}:replay"): (_P.READ,),
    ("POST", "/v1/feedback"): (_P.PREDICT,),
    ("GET", "/v1/predictions/{prediction}/feedback"): (_P.READ,),
    ("GET", "/v1/predictions/{prediction}/lineage"): (_P.READ,),
    ("GET", "/v1/models/{model}/drift"): (_P.READ,),
    ("GET", "/v1/models/{model}/performance"): (_P.READ,),
    ("GET", "/v1/models/{model}/input-report"): (_P.READ,),
    ("GET", "/ping"): (_P.PUBLIC,),
    ("GET", "/health"): (_P.PUBLIC,),
    ("GET", "/version"): (_P.PUBLIC,),
    ("POST", "/invocations"): (_P.PREDICT,),
    ("POST", "/v1/models/{model}/invocations"): (_P.PREDICT,),
    ("GET", "/v2"): (_P.PUBLIC,),
    ("GET", "/v2/health/live"): (_P.PUBLIC,),
    ("GET", "/v2/health/ready"): (_P.PUBLIC,),
    ("GET", "/v2/models/stats"): (_P.READ,),
    ("GET", "/v2/models/{model}"): (_P.DESCRIBE,),
    ("GET", "/v2/models/{model}/ready"): (_P.DESCRIBE,),
    ("GET", "/v2/models/{model}/config"): (_P.DESCRIBE,),
    ("GET", "/v2/models/{model}/stats"): (_P.READ,),
    ("POST", "/v2/models/{model}/infer"): (_P.PREDICT,),
    ("GET", "/v2/models/{model}/versions/{version}"): (_P.DESCRIBE,),
    ("GET", "/v2/models/{model}/versions/{version}/ready"): (_P.DESCRIBE,),
    ("GET", "/v2/models/{model}/versions/{version}/config"): (_P.DESCRIBE,),
    ("GET", "/v2/models/{model}/versions/{version}/stats"): (_P.READ,),
    ("POST", "/v2/models/{model}/versions/{version}/infer"): (_P.PREDICT,),
    ("POST", "/v2/repository/index"): (_P.DESCRIBE,),
    ("POST", "/v2/repository/models/{model}/load"): (_P.OPERATE,),
    ("POST", "/v2/repository/models/{model}/unload"): (_P.OPERATE,),
}


def roles_with(permissions: tuple[Permission, ...]) -> list[Role]:
    return [role for role, granted in GRANTS.items() if granted.intersection(permissions)]
