"""Tables of concentrations."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator

from malformed.case import Case, Content, calls
from malformed.models import model
from malformed.mutations import mutated

_ROWS = "".join(f"{t},{2.0**-t:.6g},{1 - 2.0**-t:.6g}\n" for t in range(12))
_PLAIN = "time,A,B\n" + _ROWS
_LONG = {"a million rows", "a million columns"}
_COMMANDS = (
    "identify m.xml t.csv",
    "convert t.csv out.csv",
    "fit-model m.xml t.csv --starts 1 --minutes 0.01 --processes 1 --out out",
)


def _with(cell: str) -> str:
    return _PLAIN.replace("0.125", cell, 1)


def _zip(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def gzip_of_zeros(megabytes: int) -> bytes:
    """A small gzip file of many zeros."""
    packer = zlib.compressobj(1, wbits=31)
    block = b"0" * (1 << 20)
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


def _large(megabytes: int) -> bytes:
    """A valid table of about so many MB: time, A, B."""
    block = "".join(f"#{t:03d},{0.5 + t / 4000:.6f},{1.0 - t / 4000:.6f}\n" for t in range(1000))
    count = megabytes * 1_000_000 // (len(block) + 4000)
    return b"time,A,B\n" + b"".join(block.replace("#", f"{10_000 + i}").encode() for i in range(count))


def _contents() -> dict[str, Content | Callable[[], Content]]:
    found: dict[str, Content | Callable[[], Content]] = {
        "empty": "",
        "header only": "time,A,B\n",
        "one row": "time,A,B\n0,1,0\n",
        "two rows": "time,A,B\n0,1,0\n1,0.5,0.5\n",
        "no newline": "time,A,B\n0,1,0\n1,0.5",
        "CR line ends": _PLAIN.replace("\n", "\r"),
        "mixed line ends": _PLAIN.replace("\n", "\r\n", 3).replace("\n", "\r", 2),
        "vertical tabs": _PLAIN.replace("\n", "\v"),
        "line separators": _PLAIN.replace("\n", "\u2028"),
        "a field of 5 MB": _with("x" * 5_000_000),
        "a number of 5 MB": _with("1" * 5_000_000),
        "a header of 5 MB": _PLAIN.replace("A", "A" * 5_000_000, 1),
        "a quote that never ends": _PLAIN.replace("A", '"A', 1),
        "a quoted field with lines": _with('"0.1\n2\n"'),
        "all values 1e300": "time,A,B\n" + "".join(f"{t},1e300,1e300\n" for t in range(12)),
        "values up to 1e300": "time,A,B\n" + "".join(f"{t},1e{25 * t},1e{25 * (11 - t)}\n" for t in range(12)),
        "all values 1e-320": "time,A,B\n" + "".join(f"{t},1e-320,{t}e-320\n" for t in range(12)),
        "all values 1e999": "time,A,B\n" + "".join(f"{t},1e999,1e999\n" for t in range(12)),
        "all values NaN": "time,A,B\n" + "".join(f"{t},NaN,NaN\n" for t in range(12)),
        "all values inf": "time,A,B\n" + "".join(f"{t},inf,-inf\n" for t in range(12)),
        "all values negative": "time,A,B\n" + "".join(f"{t},-1,-2\n" for t in range(12)),
        "all values zero": "time,A,B\n" + "".join(f"{t},0,0\n" for t in range(12)),
        "all times NaN": "time,A,B\n" + "NaN,1,2\n" * 12,
        "all times equal": "time,A,B\n" + "1,1,2\n" * 12,
        "times inf": "time,A,B\n" + "".join(f"{'inf' if t == 11 else t},1,{t}\n" for t in range(12)),
        "times 1e308": "time,A,B\n" + "".join(f"{t - 6}e307,1,{t}\n" for t in range(12)),
        "times 1e-320": "time,A,B\n" + "".join(f"{t}e-320,1,{t}\n" for t in range(12)),
        "times that go back": "time,A,B\n" + "".join(f"{-t},1,{t}\n" for t in range(12)),
        "duplicate columns": _PLAIN.replace("A,B", "A,A"),
        "two times": _PLAIN.replace("A,B", "time,B"),
        "nameless columns": _PLAIN.replace("time,A,B", ",,"),
        "unknown columns": _PLAIN.replace("A,B", "X,Y"),
        "escape in a column": _PLAIN.replace("A,B", "\x1b[31mA,B"),
        "escape in a cell": _with("\x1b[2J"),
        "right to left in a column": _PLAIN.replace("A,B", "A\u202e,B"),
        "nul bytes": _PLAIN.replace("1", "\0"),
        "only nul bytes": b"\0" * 1000,
        "utf-16": _PLAIN.encode("utf-16"),
        "utf-16 cut": _PLAIN.encode("utf-16")[:-1],
        "utf-16 of nothing": b"\xff\xfe",
        "utf-32": _PLAIN.encode("utf-32"),
        "byte order mark only": b"\xef\xbb\xbf",
        "latin-1": _PLAIN.replace("A", "Ä").encode("latin-1"),
        "binary": bytes(range(256)) * 100,
        "gzip garbage": b"\x1f\x8b" + bytes(range(256)),
        "gzip of nothing": gzip.compress(b""),
        "gzip cut": gzip.compress(_PLAIN.encode())[:-9],
        "gzip of gzip": gzip.compress(gzip.compress(_PLAIN.encode())),
        "gzip bomb": lambda: gzip_of_zeros(3 << 10),
        "zip of a table": _zip("t.csv", _PLAIN.encode()),
        "zip bomb": lambda: _zip("xl/workbook.xml", b"0" * (1 << 30)),
        "spreadsheet of garbage": _zip("xl/workbook.xml", b"<xml"),
        "parquet garbage": b"PAR1" + bytes(500) + b"PAR1",
        "a million columns": lambda: (
            ",".join(["time", *(f"S{i}" for i in range(1_000_000))]) + "\n" + ("1," * 1_000_000 + "1\n") * 2
        ),
        "a million rows": lambda: "time,A,B\n" + "".join(f"{t},1,{t}\n" for t in range(1_000_000)),
        "a million short rows": lambda: "time,A,B\n" + "1\n" * 1_000_000,
        "a million commas": lambda: "time,A,B\n" + "," * 1_000_000 + "\n",
        "a million comments": lambda: "# x\n" * 1_000_000 + _PLAIN,
        "a million empty lines": lambda: "\n" * 1_000_000 + _PLAIN,
        "too many cells": _with("0.125,1,2,3"),
        "too few cells": _PLAIN.replace(",0.875", "", 1),
        "words": _with("hello"),
        "a date": _with("2020-01-01"),
        "hexadecimal": _with("0x10"),
        "limits": _with("<0.5"),
        "decimal commas": _PLAIN.replace(",", ";").replace(".", ","),
        "thousands": _with('"1,000"'),
        "runs that are words": "run,time,A,B\n" + "".join(f"{'ab'[t // 6]},{t},{t},1\n" for t in range(12)),
        "runs that are huge": "run,time,A,B\n" + "".join(f"{t // 6}e300,{t},{t},1\n" for t in range(12)),
        "runs that are missing": "run,time,A,B\n" + "".join(f",{t},{t},1\n" for t in range(12)),
        "a run for every row": "run,time,A,B\n" + "".join(f"{t},{t},{t},1\n" for t in range(12)),
        "long": "time,species,value\n" + "".join(f"{t},{s},{t}\n" for t in range(12) for s in "AB"),
        "long with a repeated row": "time,species,value\n"
        + "".join(f"{t},{s},{t}\n" for t in range(12) for s in "AAB"),
        "long without a species": "time,species,value\n" + "".join(f"{t},,{t}\n" for t in range(12)),
        "long with unknown species": "time,species,value\n" + "".join(f"{t},X{t},{t}\n" for t in range(12)),
        "species in rows": "species,0,1,2,3\nA,1,2,3,4\nB,4,3,2,1\n",
        "species in rows, times inf": "species,0,1,inf,nan\nA,1,2,3,4\nB,4,3,2,1\n",
        "only separators": ",,,\n" * 20,
        "only comments": "# time,A,B\n# 1,2,3\n",
        "json": '{"time": [1, 2, 3]}',
        "web page": "<html><table><tr><td>1</td></tr></table></html>",
        "model": model(),
    }
    return found | {f"mutation {seed}": mutated(_PLAIN.encode(), seed) for seed in range(30)}


def tables() -> Iterator[Case]:
    """Tables for every command that reads one."""
    yield from calls("nothing changed", {"m.xml": model(), "t.csv": _PLAIN}, *_COMMANDS, right=True)
    for name, content in _contents().items():
        # A fit of a million rows is right, and takes its time.
        yield from calls(name, {"m.xml": model(), "t.csv": content}, *_COMMANDS[: 1 if name in _LONG else None])
    yield from calls(
        "200 MB", {"m.xml": model(), "t.csv": lambda: _large(200)}, _COMMANDS[0], right=True, seconds=240.0
    )
