"""The settings: the one place that reads the environment. ``docs/settings.md`` explains each."""

import base64
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MEGABYTE = 1024 * 1024


def read_ed25519_key(key: SecretStr) -> "Ed25519PrivateKey":
    """The key of a PEM file (PKCS 8, without a password), or of the base64 of its 32 bytes.

    Raises ValueError.
    """
    # Seven megabytes of a process, which a server that signs nothing does without.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = key.get_secret_value().strip()
    try:
        if not text.startswith("-----BEGIN"):
            return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))
        if isinstance(found := load_pem_private_key(text.encode(), password=None), Ed25519PrivateKey):
            return found
    except (ValueError, TypeError, UnsupportedAlgorithm):  # told below, in words that show nothing of the key
        pass
    raise ValueError("must be an Ed25519 private key: a PEM file without a password, or base64 of 32 bytes")


def _check_ed25519_key(key: SecretStr) -> SecretStr:
    read_ed25519_key(key)
    return key


class Settings(BaseSettings):
    """Every setting of the server, read from ``ROUNDHOUSE_*`` variables and never changed after."""

    model_config = SettingsConfigDict(env_prefix="ROUNDHOUSE_", frozen=True, extra="forbid")

    home: Path = Field(
        Path("models_store"), description="The folder of the database, the objects and the journal."
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL of a PostgreSQL database; empty means SQLite in the home folder."
    )
    store_url: str = Field(
        "",
        description="Object store (`s3://bucket/prefix`, `gs://…`, `az://…`); empty means a folder in "
        "the home. Credentials come from the cloud's usual variables, such as `AWS_ACCESS_KEY_ID`.",
    )
    admin_key: SecretStr | None = Field(
        None, description="The first admin key. Without it the first start makes one and prints it once."
    )
    signing_key: Annotated[SecretStr, AfterValidator(_check_ed25519_key)] | None = Field(
        None,
        description="The Ed25519 key that signs the receipts of verifications: a PEM file's content, or "
        "base64 of 32 bytes. Without it one is made, once, and kept in the database.",
    )
    no_auth: bool = Field(
        False, description="Let everybody do everything, for exploration; only on a loopback address."
    )
    max_request_bytes: int = Field(
        32 * MEGABYTE, gt=0, description="Largest body of a request other than an upload, in bytes."
    )
    max_upload_bytes: int = Field(
        16 * 1024 * MEGABYTE, gt=0, description="Largest uploaded data file, in bytes."
    )
    max_decompression_ratio: int = Field(
        200,
        gt=0,
        description="Most bytes that each byte of a compressed data file may become, beyond the first 64 MB.",
    )
    import_prefixes: list[Annotated[str, Field(pattern=r"^(s3|gs|az|https?|file)://")]] = Field(
        [],
        description="The folders from which data files may be imported, as JSON: "
        '`["s3://bucket/exports", "https://data.example.com/tables", "file:///srv/data"]`. By default none.',
    )
    max_instances: int = Field(10_000, gt=0, description="Most rows in one predict request of JSON.")
    default_model: str = Field(
        "", description="The model that `/invocations` asks; empty means the only one in service."
    )
    docs_models: int = Field(
        20, ge=0, description="How many models `/docs` shows with an operation of their own: the most used."
    )
    live_poll_seconds: float = Field(
        0.3, gt=0, le=1, description="How often a server process looks for new deployments, in seconds."
    )
    journal_seal_seconds: float = Field(
        10,
        gt=0,
        description="How often recorded predictions are sealed into Parquet segments, in seconds.",
    )
    journal_shares: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {},
        description="Which share of a model's requests is recorded, by patterns of model names, as JSON: "
        '`{"clicks-*": 0.1}`. The first pattern that a name matches counts; all else is recorded.',
    )
    lease_seconds: float = Field(
        30,
        ge=2,
        description="How long a silent worker keeps its training run or batch prediction, in seconds.",
    )
    run_attempts: int = Field(
        3,
        ge=1,
        description="How often a training run, or the next part of a batch prediction, is tried before a "
        "lost worker counts as its failure.",
    )
    worker_runs: int = Field(
        1, ge=1, description="How many training runs one worker process carries out at a time."
    )
    worker_spare: bool = Field(
        True,
        description="Whether a worker keeps a process ready that has loaded all that a training run needs: "
        "the next run starts at once, for 160 MB of memory.",
    )
    runs_per_model: int = Field(
        2, ge=1, description="How many training runs of one model run at a time, on all workers together."
    )
    run_time_limit_seconds: float = Field(
        4 * 3600, gt=0, description="Longest time one fit may take, in seconds; a run can ask for less."
    )
    run_memory_limit_bytes: int = Field(
        8 * 1024 * MEGABYTE,
        gt=0,
        description="Most memory (RSS) one fit or one scoring may use with all its processes, in bytes; a "
        "run can ask for less.",
    )
    metrics_expiry_seconds: float = Field(
        900,
        ge=0,
        description="How long `/metrics` goes on to show a version that has left service, in seconds.",
    )
    keep_alive_seconds: int = Field(
        75,
        ge=1,
        description="How long an idle connection is kept open, in seconds. Longer than the load balancer in "
        "front keeps it (most: 60), or that sends requests into connections which close as they arrive.",
    )
    shutdown_seconds: int = Field(
        30, ge=1, description="How long a stopping server waits for running requests, in seconds."
    )
    log_format: str = Field(
        "auto", pattern="^(auto|json|console)$", description="`json`, `console`, or `auto`: by terminal."
    )

    @cached_property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{self.sqlite_file}"

    @cached_property
    def receipt_key(self) -> "Ed25519PrivateKey | None":
        return None if self.signing_key is None else read_ed25519_key(self.signing_key)

    @property
    def sqlite_file(self) -> Path:
        return self.home.resolve() / "registry.db"

    @property
    def scratch(self) -> Path:
        """Working files of this machine; nothing in it outlives its process."""
        return self.home / "scratch"

    @property
    def journal(self) -> Path:
        return self.home / "journal"
