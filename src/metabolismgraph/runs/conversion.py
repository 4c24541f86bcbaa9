"""Conversion of models, tables and folders of results to the formats of other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.files import check_new_file
from metabolismgraph.formats import antimony
from metabolismgraph.formats.combine_archive import write_combine_archive
from metabolismgraph.formats.model_conversion import convert_model
from metabolismgraph.formats.table_conversion import convert_table
from metabolismgraph.runs import petab
from metabolismgraph.runs.folder import FITTED_MODEL, MANIFEST

_SBML = frozenset({".xml", ".sbml"})
_TABLES = frozenset({".csv", ".tsv", ".txt", ".xlsx", ".parquet"})
_WRITTEN = frozenset({".csv", ".parquet", ".nc"})
_ARCHIVE = ".omex"
_KNOWN = (
    "an SBML model (.xml, .sbml) to Antimony (.ant, .antimony) and back; a table (.csv, .tsv, .txt, .xlsx, .parquet) "
    "to .csv, .parquet or .nc; the folder of a fit to .omex"
)


def convert(source: str | Path, target: str | Path, *, overwrite: bool = False) -> tuple[str, ...]:
    r"""Convert a model, a table of concentrations or the folder of a fit; the suffixes of the names are the formats.

    Args:
        source: an SBML model (.xml, .sbml) or an Antimony model (.ant, .antimony); a table (.csv, .tsv, .txt, .xlsx,
            .parquet, also compressed by gzip); or the folder of `fit`, `fit-model` or `fit-petab`.
        target: for a model, the other format; for a table, .csv, .parquet or .nc (NetCDF, an `xarray.Dataset`); for a
            folder, .omex (COMBINE archive).
        overwrite: replace the target.

    Returns:
        Notes on assumptions, and on what the target does not keep.

    Raises:
        InputError: there is no such conversion; the source is missing or invalid, or cannot be expressed in the other
            format; or the target exists or cannot be written.

    Example:
        >>> from pathlib import Path
        >>> import metabolismgraph as mg
        >>> _ = Path("decay.csv").write_text("time (h),A (mM)\n0,4.0\n1,2.0\n")
        >>> notes = mg.convert("decay.csv", "decay.nc")
        >>> import xarray as xr
        >>> xr.load_dataset("decay.nc")["concentration"].sel(species="A").values
        array([4., 2.])
    """
    source, target = Path(source), Path(target)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; check the path")
    converter = _converter(source, target)
    if converter is None:
        raise InputError(f"{source} cannot be converted to {target.name}; known: {_KNOWN}")
    check_new_file(target, overwrite=overwrite)
    try:
        return converter(source, target)
    except RecursionError:
        raise InputError(f"{source}: a formula is nested too deeply to be read; write it with fewer brackets") from None
    except OSError as error:
        raise InputError(f"{source} cannot be read, or {target} cannot be written: {error.strerror}") from None


def _converter(source: Path, target: Path) -> Callable[[Path, Path], tuple[str, ...]] | None:
    have, wanted = Path(source.name.removesuffix(".gz")).suffix.casefold(), target.suffix.casefold()
    if source.is_dir():
        return _convert_folder if wanted == _ARCHIVE else None
    if (have in _SBML and wanted in antimony.SUFFIXES) or (have in antimony.SUFFIXES and wanted in _SBML):
        return convert_model
    return convert_table if have in _TABLES and wanted in _WRITTEN else None


def _convert_folder(source: Path, target: Path) -> tuple[str, ...]:
    for mark, model in ((petab.ESTIMATES, petab.MODEL), (MANIFEST, FITTED_MODEL)):
        if (source / mark).exists() and (source / model).exists():
            write_combine_archive(source, target, model)
            return ()
    raise InputError(
        f"{source}: not the folder of a finished fit ({petab.MODEL} and {petab.ESTIMATES}, or {FITTED_MODEL} and "
        f"{MANIFEST}); of a comparison, give the folder of one model"
    )
