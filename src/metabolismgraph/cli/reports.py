"""The pages that `report` writes: of a run, of an exploration, or of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.explore.journal import JOURNAL
from metabolismgraph.files import write_bytes

_COMPARISON = Path("comparison.html")


def write_report(folders: Sequence[Path], out: Path | None, *, overwrite: bool) -> Path:
    """Write the page of a run or an exploration into its folder, or a comparison of several; returns its path.

    Args:
        out: file of a comparison.
        overwrite: whether this file may exist.

    Raises:
        InputError: the folders cannot be compared, or one of them holds neither a run nor an exploration.
    """
    explorations = [folder for folder in folders if (folder / JOURNAL).exists()]
    if len(folders) > 1:
        target = out or _COMPARISON
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; choose another file with --out, or give --overwrite")
        return _written(target, _comparison(folders, explorations))
    if out is not None:
        raise InputError("--out is for a comparison of several; the page of one stands in its folder")
    if explorations:
        from metabolismgraph.explore.views import rebuild
        from metabolismgraph.runs.folder import REPORT

        rebuild(folders[0])
        return folders[0] / REPORT
    from metabolismgraph.runs.report import write_run_report

    return write_run_report(folders[0])


def _comparison(folders: Sequence[Path], explorations: Sequence[Path]) -> str:
    if not explorations:
        from metabolismgraph.runs.comparison import render_comparison

        return render_comparison(folders)
    if len(explorations) != len(folders):
        raise InputError("a run and an exploration cannot be compared; give runs only, or two explorations")
    if len(folders) > 2:
        raise InputError(f"{len(folders)} explorations: a page compares two; leave some out")
    from metabolismgraph.explore.report import render_comparison as of_explorations

    return of_explorations(*folders)


def _written(path: Path, text: str) -> Path:
    try:
        write_bytes(path, text.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file with --out") from None
    return path
