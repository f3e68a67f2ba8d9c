"""What a fit runs on, as far as it can change the outcome. Loads no scikit-learn: the server asks too."""

import hashlib
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points, version
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from app.training.algorithms.catalogue import PLUGINS

PACKAGE = Path(__file__).parent.parent
RECORDED_PACKAGES = ("roundhouse", "scikit-learn", "numpy", "scipy", "joblib", "duckdb", "optuna")
SOFTWARE = ("python", *RECORDED_PACKAGES, "blas", "distributions", "source", "threads")
"""What is equal on every machine of an installation. The rest differs between the workers of a fleet."""


def describe_environment() -> dict[str, Any]:
    """Versions, digests and the machine's abilities, as they are recorded on a model version.

    ``distributions`` is the digest of everything installed that a fit can meet; ``lock`` that of ``uv.lock``
    where the server runs from its source, else null. ``cpu`` names the instruction sets that NumPy uses, and
    ``blas_kernels`` those that BLAS has chosen.
    """
    return {
        **_describe_software(),
        "lock": _lock_digest(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "blas_kernels": sorted({library["architecture"] for library in _blas_libraries()}),
    }


def runs_on_equal_software(recorded: Mapping[str, Any]) -> bool:
    """Whether this process would fit with the software that an environment was recorded with."""
    software = _describe_software()
    return all(recorded.get(name) == software[name] for name in SOFTWARE)


@cache  # what this process runs was read at its start
def _describe_software() -> Mapping[str, Any]:
    blas = {name: module.show_config(mode="dicts") for name, module in (("numpy", np), ("scipy", scipy))}
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in RECORDED_PACKAGES},
        "blas": {name: _name_blas(config["Build Dependencies"]["blas"]) for name, config in blas.items()},
        "distributions": _digest_distributions(),
        "source": source_digest(),
        "threads": 1,
    }


def source_digest() -> str:
    """``sha256:…`` of this server's own code: a version's number does not tell every state of it."""
    digest = hashlib.sha256()
    for path in sorted((*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.so"))):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"


def _digest_distributions() -> str:
    installed = "".join(f"{name}=={found}\n" for name, found in sorted(_list_distributions().items()))
    return f"sha256:{hashlib.sha256(installed.encode()).hexdigest()}"


def _list_distributions() -> dict[str, str]:
    """The versions of this server, of the plug-ins of algorithms, and of all that these need, by name."""
    waiting = ["roundhouse", *(entry.dist.name for entry in entry_points(group=PLUGINS) if entry.dist)]
    found: dict[str, str] = {}
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found or (one := _find(name)) is None:
            continue
        found[name] = one.version
        for requirement in one.requires or ():
            # Extras of ours are algorithms; those of others are seldom installed for our sake.
            if name == "roundhouse" or "extra ==" not in requirement:
                waiting += re.findall(r"^[\w.-]+", requirement)
    return found


def _find(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:  # an extra, or for another platform
        return None


@cache
def _lock_digest() -> str | None:
    lock = PACKAGE.parent / "uv.lock"
    return f"sha256:{hashlib.sha256(lock.read_bytes()).hexdigest()}" if lock.is_file() else None


def _name_blas(built: Mapping[str, Any]) -> str:
    return f"{built['name']} {built.get('version', '')}".strip()


def _blas_libraries() -> list[dict[str, Any]]:
    return [one for one in threadpool_info() if one["user_api"] == "blas" and "architecture" in one]
