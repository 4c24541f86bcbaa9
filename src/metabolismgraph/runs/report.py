"""report.html of a run: what was found, how sure it is, and how it was found, in one page to send to a colleague.

The page is a view of the files of the run folder, and can be made again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metabolismgraph.errors import FirewallError
from metabolismgraph.files import write_bytes
from metabolismgraph.processes import last_line
from metabolismgraph.reports import words
from metabolismgraph.reports.page import D3, TABULATOR, render
from metabolismgraph.runs.folder import ERRORS, MANIFEST, REPORT, RunFolder

if TYPE_CHECKING:
    import xarray as xr


def write_run_report(path: Path, evaluation: xr.Dataset | None = None) -> Path:
    """Write report.html into a run folder, finished or not; returns its path.

    Args:
        path: the run folder.
        evaluation: the content of its evaluation.nc, if it is at hand.

    Raises:
        InputError: there is no run, or a file of it is damaged.
        OSError: the page cannot be written.
    """
    folder, leak = _opened(path)
    content = _about(folder)
    data: dict[str, Any] = {}
    if leak is not None or not folder.is_finished("evaluate"):
        content |= _unfinished(folder, leak)
    else:
        from metabolismgraph.runs.report_results import results_content  # noqa: PLC0415 (pandas, xarray: after training)

        found, data = results_content(folder, evaluation)
        content |= found
    target = path / REPORT
    page = render("run.html", content, data, libraries=(TABULATOR, D3), scripts=("report.js", "run.js"))
    write_bytes(target, page.encode())
    return target


def _opened(path: Path) -> tuple[RunFolder, str | None]:
    """A run, and the attempt of its training to reach outside its folder, after which it has no results."""
    try:
        return RunFolder.open(path), None
    except FirewallError as error:
        return RunFolder(path, json.loads((path / MANIFEST).read_bytes())), str(error)


def _about(folder: RunFolder) -> dict[str, Any]:
    """What is known of every run: configuration, origin, versions, host and times."""
    manifest, config = folder.manifest, folder.config
    simulated = manifest["source"].get("command") == "run"  # the name of a configuration is that of its system
    return {
        "title": config.dataset if simulated else folder.path.resolve().name,
        "description": config.description if simulated else "",
        "folder": folder.path.name,
        "started": str(manifest.get("started", "")),
        "origin": _origin(folder),
        "repeat": _repeat(folder),
        "stages": [
            (name, f"{stage['seconds']:.1f}", stage.get("finished", "")) for name, stage in manifest["stages"].items()
        ],
        "changed": words.changed(config),
        "unfinished": "",
        "results": None,
    }


def _origin(folder: RunFolder) -> list[tuple[str, str]]:
    """What a run was made from, with which versions, and where."""
    manifest = folder.manifest
    commit = manifest.get("git_commit")
    return [
        *manifest["source"].items(),
        ("checksum of what training was given", manifest.get("observations", "-")),
        *folder.facts("versions").items(),
        *([("commit", str(commit))] if commit else []),
        *folder.facts("host").items(),
        ("restrictions of training", ", ".join(words.listed(manifest, "sandbox")) or "-"),
    ]


def _repeat(folder: RunFolder) -> str:
    """The command that repeats a run, for a shell; empty where there is none."""
    return {
        "run": "metabolismgraph run config.yaml --out again",
        "fit": "metabolismgraph fit data/network.xml data/timeseries.csv.gz --config config.yaml --out again",
    }.get(folder.manifest["source"].get("command"), "")


def _unfinished(folder: RunFolder, leak: str | None) -> dict[str, Any]:
    if leak is not None:
        return {"unfinished": f"Its results are invalid and were removed. {leak}"}
    done = ", ".join(folder.manifest["stages"]) or "none"
    said = last_line(folder.training / ERRORS)
    sentences = [
        f"This run has not finished, and has no results. Finished stages: {done}.",
        *([f"The training process ended with: {said}"] if said else []),
        "The same command with --resume continues it.",
    ]
    return {"unfinished": " ".join(sentences)}
