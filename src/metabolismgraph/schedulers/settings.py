"""Where jobs run, and what a cluster wants to know of them: settings of a place, not part of an exploration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from metabolismgraph.config.messages import parse_options
from metabolismgraph.config.section import Section
from metabolismgraph.config.yaml_text import parse_yaml
from metabolismgraph.errors import InputError
from metabolismgraph.files import read_bytes


def _check_line(text: str) -> str:
    # A line break would begin another directive, or another command.
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


Line = Annotated[str, AfterValidator(_check_line)]


class ClusterSettings(Section):
    """Engine, resources of a job, and what a site requires besides.

    Example:
        >>> ClusterSettings(queue="short", directives=("--qos=long",)).cores
        1
    """

    engine: Line = Field("process", description="where jobs run: process (of this computer), slurm, lsf or dask")
    address: Line = Field("", description="Dask: address of the scheduler, such as tcp://host:8786")
    queue: Line = Field("", description="partition (Slurm) or queue (LSF); empty: the default one")
    account: Line = Field("", description="account (Slurm) or project (LSF); empty: the default one")
    cores: int = Field(1, ge=1, description="cores of a job")
    memory_gb: float = Field(4.0, gt=0, description="memory of a job [GB]")
    gpus: int = Field(0, ge=0, description="graphics cards of a job")
    minutes: int | None = Field(
        None, ge=1, description="walltime of a job [minutes]; null: exploration.slot_minutes and ten more"
    )
    max_jobs: int = Field(50, ge=1, description="jobs that wait or run at the same time")
    poll_seconds: float = Field(20.0, ge=0.1, description="time between two looks at the queue [s]")
    retries: int = Field(3, ge=0, description="further runs of an iteration for every way in which it may be lost")
    grace_seconds: float = Field(
        90.0,
        ge=0,
        description="time after which files of other computers are seen, and a missing job is lost [s]",
    )
    directives: tuple[Line, ...] = Field(
        (),
        description="further options of the scheduler, such as --qos=long; Dask: resources, such as slot=1",
    )
    setup: tuple[Line, ...] = Field((), description="shell commands before the job, such as module load python")
    explorer_minutes: float = Field(
        1430.0, gt=0, description="--in-job: time after which an explorer hands over to the next one [minutes]"
    )
    explorer_queue: Line = Field("", description="--in-job: queue of the explorer; empty: that of the other jobs")
    explorer_setup: tuple[Line, ...] = Field(
        (),
        description="--in-job: shell commands before the explorer, such as one that sets the key of a service",
    )
    memory_per_slot: bool = Field(False, description="LSF: whether the site counts memory per core")
    memory_unit: Literal["KB", "MB", "GB"] = Field("MB", description="LSF: unit of limits (LSF_UNIT_FOR_LIMITS)")


def read_settings(path: Path | None, changes: Sequence[str] = ()) -> ClusterSettings:
    """Settings of a YAML file, with changes such as "queue=short"; values are read as YAML.

    Args:
        path: of the file; None: the defaults.

    Raises:
        InputError: the file cannot be read, or a key or value is wrong.
    """
    tree: object = {}
    if path is not None:
        try:
            tree = parse_yaml(read_bytes(path).decode(), str(path)) or {}
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file; settings of a cluster are YAML in UTF-8") from None
        if not isinstance(tree, dict):
            raise InputError(f"{path}: expected lines such as `queue: short`")
    merged = dict(tree) if isinstance(tree, dict) else {}
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise InputError(f"--setting {change}: expected key=value, such as queue=short")
        merged[key.strip()] = parse_yaml(value, f"--setting {change}")
    return parse_options(ClusterSettings, merged, str(path or "--setting"), "the cluster", "setting")
