"""Run folders: their files, and how an interrupted run is resumed."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict

from metabolismgraph.config import Config
from metabolismgraph.errors import FirewallError, InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.processes import run

MANIFEST, CONFIG, FITTED_MODEL, REPORT = "manifest.json", "config.yaml", "model_fitted.xml", "report.html"
RATE_CONSTANTS, HOMEOSTASIS, PARAMETERS = "rate_constants.csv", "homeostasis.csv", "parameters.csv"
RATE_LAW = "rate_law.csv"
NETWORK_AS_GIVEN = "network_as_given.xml"
ERRORS = "stderr.txt"  # of the training process, in its folder
_RESULTS = (
    "metrics.json",
    "analysis.log",
    "evaluation.nc",
    RATE_CONSTANTS,
    HOMEOSTASIS,
    PARAMETERS,
    RATE_LAW,
    FITTED_MODEL,
    REPORT,
)
MOST_SECONDS = 1e12  # of a stage
_FOLDERS = ("figures", "tmp_training", "uncertainty")
_PACKAGES = ("metabolismgraph", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy")


class _Stage(BaseModel):
    seconds: float = Field(ge=0, le=MOST_SECONDS)


class _Leak(BaseModel):
    attempt: str


class _Manifest(BaseModel):
    """What must be in a manifest, and what may be."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    config: Annotated[Config, Strict(False)]
    stages: dict[str, _Stage]
    source: dict[str, str]
    observations: str = ""
    base: str = ""
    leak: _Leak | None = None
    notes: tuple[str, ...] = ()


class RunFolder:
    """A folder with a manifest of configuration, versions, host and finished stages.

    Layout: `manifest.json`, `config.yaml` (complete, can be run again), `data/` (network.xml, timeseries.csv.gz,
    truth/), `training/` (observations, settings and checkpoints: all files of the training process),
    `rate_constants.csv`, `homeostasis.csv`, `parameters.csv`, `rate_law.csv`, `model_fitted.xml`, `metrics.json`,
    `analysis.log`, `evaluation.nc`, `report.html`, `tmp_training/` and `figures/`. A run of Phase 2 alone may use data,
    observations and Phase 1 of another run, its base, instead of copies; it has no `report.html`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path = path
        self.manifest = manifest

    @property
    def data(self) -> Path:
        return (self.base or self.path) / "data"

    @property
    def training(self) -> Path:
        return self.path / "training"

    @property
    def given(self) -> Path:
        """The folder of the observations and the Phase 1 checkpoint."""
        return (self.base or self.path) / "training"

    @property
    def base(self) -> Path | None:
        """The run whose data, observations and Phase 1 this one uses."""
        if "base" not in self.manifest:
            return None
        # Without "..", which the sandbox refuses.
        return Path(os.path.normpath(self.path.absolute() / self.manifest["base"]))

    @classmethod
    def create(
        cls,
        path: Path,
        config: Config,
        source: Mapping[str, str],
        *,
        overwrite: bool = False,
        base: Path | None = None,
    ) -> RunFolder:
        """Start a run in an empty or new folder.

        Args:
            source: origin of the data, such as {"command": "run"}; the same in a resumed run.
            overwrite: remove an earlier run in the folder first.
            base: a run whose data, observations and Phase 1 are used.

        Raises:
            InputError: the folder is not empty, or cannot be written.
        """
        try:
            if path.exists() and any(path.iterdir()):
                if not overwrite:
                    raise InputError(f"{path}: not empty; add --resume, --overwrite, or another --out")
                if not (path / MANIFEST).exists():
                    raise InputError(
                        f"{path}: holds files but no run; it will not be overwritten, choose another --out"
                    )
                shutil.rmtree(path)
            made = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, _new_manifest(config, source))
            if base is not None:
                folder.manifest["base"] = os.path.relpath(base, path)
            try:
                write_bytes(path / CONFIG, config.to_yaml().encode())
                folder._write()
            except OSError:
                (path / CONFIG).unlink(missing_ok=True)
                if made:
                    path.rmdir()
                raise
        except NotADirectoryError:
            raise InputError(f"{path}: is a file or lies below one; choose another --out") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from None
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run.

        Raises:
            InputError: the folder has no run.
            FirewallError: its training tried to reach something outside its folder.
        """
        try:
            content = (path / MANIFEST).read_bytes()
            _Manifest.model_validate_json(content)
            manifest = json.loads(content)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{path}: no run here ({MANIFEST} is missing)") from None
        except (OSError, ValueError, RecursionError):
            raise InputError(f"{path / MANIFEST}: damaged; start again with --overwrite") from None
        folder = cls(path, manifest)
        if folder.leak:
            raise FirewallError(folder.leak)
        return folder

    @classmethod
    def resume(cls, path: Path, config: Config, source: Mapping[str, str], *, base: Path | None = None) -> RunFolder:
        """Open an interrupted run to continue it; a folder without a run gets a new one.

        Raises:
            InputError: the run there was made with another configuration or other data.
            FirewallError: its training tried to reach something outside its folder.
        """
        if not (path / MANIFEST).exists():
            return cls.create(path, config, source, base=base)
        folder = cls.open(path)
        if folder.config != config or folder.manifest["source"] != dict(source):
            raise InputError(
                f"{path}: was started with another configuration or other data; use --overwrite, or another --out"
            )
        return folder

    @property
    def config(self) -> Config:
        return Config.model_validate(self.manifest["config"])

    def facts(self, name: str) -> dict[str, str]:
        """An entry of the manifest such as `versions`, whose content is not checked; empty if it is damaged."""
        found = self.manifest.get(name)
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def is_finished(self, stage: str) -> bool:
        return stage in self.manifest["stages"]

    def finish(self, stage: str, seconds: float) -> None:
        """Record a stage as finished; its files must be on disk."""
        self.manifest["stages"][stage] = {"seconds": round(seconds, 3), "finished": _now()}
        self._write()

    def seconds(self, stage: str) -> float:
        """Duration of a finished stage [s]; 0 for a stage that was not run."""
        return float(self.manifest["stages"].get(stage, {}).get("seconds", 0.0))

    @property
    def leak(self) -> str | None:
        """The attempt that makes the results of training invalid, in one line; None without one."""
        if self.manifest.get("leak") is None:
            return None
        attempt = self.manifest["leak"]["attempt"]
        return f"{self.path}: training tried to reach outside its folder ({attempt}); start again with --overwrite"

    def mark_leak(self, attempt: str) -> None:
        """Record that training tried to reach outside its folder, and remove its results."""
        self.record(leak={"attempt": attempt, "found": _now()})
        for name in _RESULTS:
            (self.path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def record(self, **entries: Any) -> None:
        """Write entries of the manifest.

        They are `observations` (checksum of what training was given), `notes` (assumptions and omissions of the readers
        of network and table) and `sandbox` (the restrictions of training: the audit hook, and where available
        those of files by the kernel and of system calls).
        """
        self.manifest |= entries
        self._write()

    def _write(self) -> None:
        write_bytes(self.path / MANIFEST, (json.dumps(self.manifest, indent=1) + "\n").encode())


def free_path(base: Path) -> Path:
    """`base`, or base-2, base-3, ...: the first that is missing or empty."""
    number, path = 1, base
    while path.exists() and (not path.is_dir() or any(path.iterdir())):
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def latest_path(base: Path) -> Path:
    """The last of `base`, base-2, base-3, ... that exists; `base` where none does."""
    number, path = 1, base
    while (after := base.with_name(f"{base.name}-{number + 1}")).exists():
        number, path = number + 1, after
    return path


def _new_manifest(config: Config, source: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": 1,
        "source": dict(source),
        "config": config.model_dump(mode="json"),
        "started": _now(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "git_commit": _git_commit(),
        "host": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        },
        "stages": {},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """Commit of the source tree of this package; None for an installed package."""
    here = Path(__file__).parent
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        completed = run(["git", "-C", str(here), "rev-parse", "HEAD"], seconds=5.0)
    except OSError:
        return None
    return completed.stdout.decode().strip() if completed.code == 0 else None
