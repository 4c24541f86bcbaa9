"""Files of `torch.save`, read without PyTorch and without running anything in them.

A file is a zip archive of a pickle, which says how dictionaries, lists and tensors are put together, and of the numbers
of every tensor, uncompressed. A pickle can call any function, so it is never loaded: its opcodes are interpreted here,
as torch.load does with weights_only. The few opcodes and names that tensors need are known; every other one is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from metabolismgraph.errors import InputError
from metabolismgraph.files import read_bytes
from metabolismgraph.text import one_line, visible

_LARGEST = 1 << 30  # bytes of a file
_ZIP = b"PK\x03\x04"
_DTYPES = {
    f"torch {name}Storage": np.dtype(dtype)
    for name, dtype in (
        *(("Double", "<f8"), ("Float", "<f4"), ("Half", "<f2"), ("Long", "<i8"), ("Int", "<i4"), ("Short", "<i2")),
        *(("Char", "i1"), ("Byte", "u1"), ("Bool", "?")),
    )
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_torch(path: Path) -> Any:
    """The content of a file of `torch.save`: dictionaries, lists and tuples of NumPy arrays, numbers and text.

    Raises:
        InputError: the file is missing, too large, damaged or of PyTorch before 1.6, or it contains anything else, such
            as a call of a function.
    """
    if path.is_file():
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: larger than {_LARGEST >> 30} GiB; save the model_state_dict alone")
        with path.open("rb") as stream:
            if stream.read(len(_ZIP)) != _ZIP:
                raise InputError(f"{path}: not a file of torch.save; save it again with PyTorch 1.6 or later")
    content = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _Pickle(path, _entries(archive, len(content))).read()
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail anywhere
        raise InputError(f"{path}: damaged ({type(error).__name__}: {visible(one_line(error, 100))})") from None


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, bytes]:
    """The content of every entry, by its name within the folder of the archive."""
    infos = archive.infolist()
    # Entries that are compressed or that overlap could be far larger than the file.
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or sum(i.file_size for i in infos) > size:
        raise ValueError("entries are larger than the file")
    return {info.filename.partition("/")[2]: archive.read(info) for info in infos}


class _Pickle:
    """The interpreter of one pickle.

    Attributes:
        path: for messages.
        entries: the archive.
        stack, marks, memo: the state of the pickle machine, see the module `pickletools`.
        opcodes: what to do with the argument of an opcode.
        names: what a name in the pickle stands for.
    """

    def __init__(self, path: Path, entries: dict[str, bytes]):
        self.path, self.entries = path, entries
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.opcodes: dict[str, Callable[[Any], object]] = {
            "PROTO": lambda _: None,
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "BINPUT": lambda index: self.memo.__setitem__(index, self.stack[-1]),
            "BINGET": lambda index: self.stack.append(self.memo[index]),
            "TUPLE": lambda _: self.stack.append(tuple(self._since_mark())),
            "APPEND": lambda _: self._add([self.stack.pop()]),
            "APPENDS": lambda _: self._add(self._since_mark()),
            "SETITEM": lambda _: self._add(self._last(2)),
            "SETITEMS": lambda _: self._add(self._since_mark()),
            "GLOBAL": lambda name: self.stack.append(self._named(name)),
            "BINPERSID": lambda _: self.stack.append(self._storage(*self.stack.pop())),
            "REDUCE": lambda _: self.stack.append(self._made(*self._last(2))),
            "BUILD": lambda _: self.stack.pop(),  # attributes, such as the versions of the modules of a state_dict
        }
        self.opcodes |= {f"LONG_{name}": self.opcodes[name] for name in ("BINPUT", "BINGET")}
        self.names: dict[str, Callable[..., Any]] = {
            "collections OrderedDict": dict,
            "torch._utils _rebuild_tensor_v2": _tensor,
            "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
        }

    def read(self) -> Any:
        """The object that the pickle describes."""
        if self.entries.get("byteorder", b"little") != b"little":
            raise InputError(f"{self.path}: written on a big-endian machine; save it again on another one")
        for opcode, argument, _ in pickletools.genops(self.entries["data.pkl"]):
            name = opcode.name
            if name == "STOP":
                break
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name in _TUPLES:
                self.stack.append(tuple(self._last(_TUPLES[name])))
            elif name in self.opcodes:
                self.opcodes[name](argument)
            else:
                self._refuse(f"the opcode {name}")
        (content,) = self.stack
        return content

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(
            f"{self.path}: contains {visible(one_line(what, 100))}, not only tensors; other programs might run it. "
            "Ask for a file of the state_dict alone"
        )

    def _last(self, number: int) -> list[Any]:
        """Remove and return the last entries of the stack."""
        if len(self.stack) < number:
            raise ValueError("the stack is empty")
        taken = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return taken

    def _since_mark(self) -> list[Any]:
        return self._last(len(self.stack) - self.marks.pop())

    def _add(self, items: list[Any]) -> None:
        """Add entries to the list, or keys and values to the dictionary, on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(items[::2], items[1::2], strict=True))
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise TypeError("not a list or a dictionary")

    def _named(self, name: str) -> Any:
        if name not in self.names and name not in _DTYPES:
            self._refuse(name.replace(" ", "."))
        return self.names.get(name) or _DTYPES[name]

    def _storage(
        self, kind: str, dtype: np.dtype[Any], key: str, _device: str, numel: int
    ) -> tuple[bytes, np.dtype[Any]]:
        """The numbers of a storage, and their type."""
        content = self.entries[f"data/{key}"]
        if kind != "storage" or len(content) != numel * dtype.itemsize:
            raise ValueError(f"storage {key} has another length")
        return content, dtype

    def _made(self, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """The result of one of the known functions."""
        if not any(make is known for known in self.names.values()):
            raise TypeError("not a function")
        return make(*arguments)


def _tensor(
    storage: tuple[bytes, np.dtype[Any]], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> np.ndarray:
    """A tensor as a contiguous array."""
    content, dtype = storage
    # A stride of zero could make an array of any size from a single number.
    if math.prod(size) > len(content) // dtype.itemsize:
        raise ValueError("a tensor is larger than its storage")
    strides = tuple(step * dtype.itemsize for step in stride)
    # NumPy refuses an array that reaches beyond the buffer.
    return np.ndarray(size, dtype, content, offset * dtype.itemsize, strides).copy()
