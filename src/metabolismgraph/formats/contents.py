"""Detection of the kind of a file: text in some encoding, a spreadsheet, or a kind that is rejected by name."""

from __future__ import annotations

import importlib.util
import io
import re
import zipfile
from pathlib import Path

import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.text import one_line

_SAVE_AS_CSV = "save it as CSV (in a spreadsheet program: File, Save As, CSV UTF-8)"
_ZIP = b"PK\x03\x04"
_KINDS = {
    b"\xd0\xcf\x11\xe0": f"an old spreadsheet (.xls); {_SAVE_AS_CSV}",
    b"%PDF": "a PDF document; give the table itself, as CSV",
    b"\x89HDF": "an HDF5 or NetCDF file; write the table as CSV or Parquet",
    b"CDF": "a NetCDF file; write the table as CSV or Parquet",
    b"MATLAB 5": "a MATLAB file; write the table as CSV (writetable)",
    b"\x93NUMPY": "a NumPy array, which has no column names; write a table as CSV",
    b"SQLite format": "a database; write the table as CSV",
    b"\x89PNG": "an image; give the numbers as CSV",
    b"\xff\xd8\xff": "an image; give the numbers as CSV",
    b"{\\rtf": "a formatted document; give the table itself, as CSV",
    b"BZh": "a bzip2 archive; unpack it, or use gzip",
    b"\xfd7zXZ": "an xz archive; unpack it, or use gzip",
    b"7z\xbc\xaf": "a 7z archive; unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it, or use gzip",
}
_MARKUP = {
    rb"<(!doctype\s+html|html|table|head|body|div)\b": f"a web page (HTML), not a table; {_SAVE_AS_CSV}",
    rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<sbml\b": "an SBML model, not a table; give the model first, then the table",
    rb"<\?xml\b": "an XML file, not a table; write the table as CSV",
    rb'(\{\s*["}]|\[\s*[{\[]\s*["{\d])': "a JSON file, not a table; write the table as CSV",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")


def read_text(path: Path, content: bytes) -> tuple[str, list[str]]:
    """The text of a table, with Unix line ends, and notes on assumptions; a spreadsheet is converted to CSV.

    Raises:
        InputError: the content is not text; the message states its kind, if it is recognised.
    """
    if content.startswith(_ZIP):
        text, notes = _from_zip(path, content)
    else:
        _refuse_kinds(path, content)
        text, notes = _decoded(path, content)
    text = text.rstrip("\x1a")  # end-of-file character of DOS
    if _CONTROL.search(text):
        raise InputError(f"{path}: not a text file (it holds control characters); write the table as CSV in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n"), notes


def _refuse_kinds(path: Path, content: bytes) -> None:
    for start, kind in _KINDS.items():
        if content.startswith(start):
            raise InputError(f"{path}: this is {kind}")
    head = content[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, kind in _MARKUP.items():
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            raise InputError(f"{path}: this is {kind}")


def _decoded(path: Path, content: bytes) -> tuple[str, list[str]]:
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig"), []
    except UnicodeDecodeError as error:
        if wide or b"\x00" in content:
            raise InputError(f"{path}: not a text file ({one_line(error)}); write the table as CSV in UTF-8") from None
    # Every byte is a character in Latin-1. A file that is not text is recognised by its control characters.
    text = content.decode("latin-1")
    return text, ["The file is not in UTF-8: it was read as Latin-1."]


def _from_zip(path: Path, content: bytes) -> tuple[str, list[str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            mimetype = archive.read("mimetype") if "mimetype" in names else b""
    except Exception as error:
        raise InputError(f"{path}: a damaged zip file ({one_line(error)}); create it again") from None
    if b"opendocument" in mimetype:
        raise InputError(f"{path}: this is an OpenDocument file (.ods); {_SAVE_AS_CSV}")
    if any(name.startswith("xl/") for name in names):
        return _from_spreadsheet(path, content)
    raise InputError(f"{path}: this is a zip archive ({one_line(', '.join(names), 60)}); unpack it and give the table")


def _from_spreadsheet(path: Path, content: bytes) -> tuple[str, list[str]]:
    if importlib.util.find_spec("openpyxl") is None:
        raise InputError(f"{path}: this is a spreadsheet (.xlsx); {_SAVE_AS_CSV}, or install the package openpyxl")
    try:
        sheets = pd.read_excel(io.BytesIO(content), sheet_name=None, header=None, dtype=object, engine="openpyxl")
    except Exception as error:
        raise InputError(f"{path}: not a readable spreadsheet ({one_line(error)}); {_SAVE_AS_CSV}") from None
    full = {name: sheet for name, sheet in sheets.items() if not sheet.empty}
    if not full:
        raise InputError(f"{path}: the spreadsheet is empty")
    name, sheet = next(iter(full.items()))
    cells = sheet.map(lambda cell: " ".join(cell.split()) if isinstance(cell, str) else cell)
    others = ", ".join(str(other) for other in list(full)[1:])
    notes = [f"Sheet {name} was read; other sheets were not: {one_line(others, 100)}."] if others else []
    return cells.to_csv(index=False, header=False), notes
