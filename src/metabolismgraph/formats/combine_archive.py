"""COMBINE archives (Bergmann et al. 2014): the files of a study in a zip file, with a manifest (OMEX, version 1)."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes

_SPECIFICATION = "http://identifiers.org/combine.specifications/"
_MEDIA_TYPE = "http://purl.org/NET/mediatypes/"
_MANIFEST = "manifest.xml"
_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".json": "application/json",
    ".log": "text/plain",
    ".nc": "application/x-netcdf",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".xml": "application/xml",
    ".yaml": "application/x-yaml",
}
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # date of a zip file; the same for all, so that equal files give equal archives
_REGULAR_FILE = 0o100644 << 16


def write_combine_archive(folder: Path, path: Path, master: str) -> None:
    """Write all files of a folder, except hidden ones, as a COMBINE archive.

    Args:
        folder: the folder.
        path: the archive; it may be in the folder.
        master: name of the file that other programs open first.

    Raises:
        InputError: a file is a link, or is called like the manifest.
    """
    files = {}
    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder)
        if file.is_symlink():
            raise InputError(f"{file}: is a link; put a copy of the file in its place")
        if file.is_file() and file.absolute() != path.absolute() and not any(p.startswith(".") for p in place.parts):
            files[place.as_posix()] = file.read_bytes()
    if _MANIFEST in files:
        raise InputError(f"{folder / _MANIFEST}: an archive has a manifest of its own; rename this file")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {_MANIFEST: _manifest(files, master), **files}.items():
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, _REGULAR_FILE, 3
            archive.writestr(entry, content)
    write_bytes(path, stream.getvalue())


def _manifest(files: Mapping[str, bytes], master: str) -> bytes:
    formats = {name: _format(name, content) for name, content in files.items()}
    own = {".": f"{_SPECIFICATION}omex", f"./{_MANIFEST}": f"{_SPECIFICATION}omex-manifest"}
    lines = [
        f"  <content location={quoteattr(place)} format={quoteattr(kind)}{marked}/>"
        for place, kind, marked in (
            *((place, kind, "") for place, kind in own.items()),
            *((f"./{name}", kind, ' master="true"' * (name == master)) for name, kind in formats.items()),
        )
    ]
    head = ['<?xml version="1.0" encoding="UTF-8"?>', f'<omexManifest xmlns="{_SPECIFICATION}omex-manifest">']
    return "\n".join([*head, *lines, "</omexManifest>", ""]).encode()


def _format(name: str, content: bytes) -> str:
    """The URI of the format of a file."""
    suffix = Path(name).suffix
    if suffix == ".xml":
        sbml = re.search(rb"<sbml\b[^>]*>", content)
        numbers = sbml and [re.search(rb'\b%s="(\d+)"' % key, sbml[0]) for key in (b"level", b"version")]
        if numbers and all(numbers):
            level, version = (found[1].decode() for found in numbers if found)
            return f"{_SPECIFICATION}sbml.level-{level}.version-{version}"
    if suffix in {".yaml", ".yml"} and re.search(rb"^problems:", content, re.MULTILINE):
        return f"{_SPECIFICATION}petab.version-1"
    return _MEDIA_TYPE + _MEDIA_TYPES.get(suffix, "application/octet-stream")
