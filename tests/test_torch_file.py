"""Files of torch.save: read as PyTorch reads them, and hostile or damaged ones refused, with nothing of them run."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from published_files import GOLDEN, torch

from metabolismgraph.errors import InputError
from metabolismgraph.formats.torch_file import read_torch

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
FLOATS = np.arange(6, dtype="<f4")


def archive(path, content, compression=zipfile.ZIP_STORED, **entries):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, value in {"data.pkl": content, "byteorder": b"little", **entries}.items():
            file.writestr(f"archive/{name}", value)
    return path


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def storage(key="0", numel=6, kind="FloatStorage"):
    """The reference to a storage: an identifier of five parts."""
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + integer(numel) + b"tQ"


def tensor(size=(2, 3), stride=(3, 1), offset=0, of=None):
    """The opcodes of a tensor, by hand."""
    parts = [b"ctorch._utils\n_rebuild_tensor_v2\n(", of or storage(), integer(offset)]
    parts += [b"(" + b"".join(map(integer, values)) + b"t" for values in (size, stride)]
    return b"".join([*parts, b"\x89ccollections\nOrderedDict\n)RtR"])


def whole(opcodes):
    return b"\x80\x02" + opcodes + b"."


def read(tmp_path, opcodes, **entries):
    return read_torch(archive(tmp_path / "file.pt", whole(opcodes), **({"data/0": FLOATS.tobytes()} | entries)))


def test_a_tensor_by_hand(tmp_path):
    found = read(tmp_path, tensor())
    assert (found.dtype, found.tolist()) == (np.float32, [[0, 1, 2], [3, 4, 5]])
    assert read(tmp_path, tensor((3, 2), (1, 3))).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert read(tmp_path, tensor((2,), (2,), offset=1)).tolist() == [1, 3]
    assert read(tmp_path, tensor((), ())).shape == ()
    assert read(tmp_path, tensor((0,), (1,))).shape == (0,)
    longs = tensor((3,), (1,), of=storage(kind="LongStorage", numel=3))
    assert read(tmp_path, longs, **{"data/0": np.arange(3).tobytes()}).dtype == np.int64


def test_a_file_of_pytorch():
    content = read_torch(GOLDEN / "model_mul.pt")
    state = content["model_state_dict"]
    assert state["substrate_func.0.weight"].shape == (8, 2)
    assert state["met_all"].dtype == np.int64
    group = content["optimizer_state_dict"]["param_groups"][0]
    assert (group["lr"], group["betas"], group["maximize"]) == (1e-3, (0.9, 0.999), False)


@needs_torch
def test_the_same_as_pytorch_reads(tmp_path):
    torch.manual_seed(0)
    base = torch.randn(4, 6, dtype=torch.float64)
    content = {
        "views": [base, base.T, base[1:, ::2], base[0, 3], torch.zeros(0)],
        "types": tuple(
            torch.tensor([0, 1, 100]).to(getattr(torch, t)) for t in ("int8", "uint8", "int16", "half", "bool")
        ),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "others": {1: None, "x": [True, -1, 2**40, 1e-300, "µ"]},
    }
    torch.save(content, tmp_path / "file.pt")

    def compared(ours, theirs):
        if isinstance(theirs, torch.Tensor):
            assert np.array_equal(ours, theirs.detach().numpy())
            assert ours.dtype == theirs.detach().numpy().dtype
        elif isinstance(theirs, dict):
            assert list(ours) == list(theirs)
            for key in theirs:
                compared(ours[key], theirs[key])
        elif isinstance(theirs, list | tuple):
            assert type(ours) is type(theirs)
            for one, other in zip(ours, theirs, strict=True):
                compared(one, other)
        else:
            assert ours == theirs

    compared(read_torch(tmp_path / "file.pt"), torch.load(tmp_path / "file.pt", weights_only=True))


class Command:
    """An object whose pickle runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused_and_does_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    content = pickle.dumps({"model_state_dict": Command(mark)}, protocol)
    with pytest.raises(InputError, match="contains .*, not only tensors"):
        read_torch(archive(tmp_path / "file.pt", content))
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # the same pickle, loaded: the test would notice


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cbuiltins\neval\n(" + text("1+1") + b"tR",
        b"cnumpy.core.multiarray\n_reconstruct\n)R",
        b"ctorch._utils\n_rebuild_tensor_v3\n)R",
        b"ctorch\nload\n(" + text("other.pt") + b"tR",
        b"(ibuiltins\neval\n" + text("1") + b"o",
        b"\x82\x01",  # an extension by number
        b"ccollections\nOrderedDict\n)\x81",  # an object without its __init__
        text("a") + text("b") + b"\x93",  # a name from the stack
    ],
)
def test_every_other_name_and_opcode_is_refused(tmp_path, opcodes):
    with pytest.raises(InputError, match="not only tensors"):
        read(tmp_path, opcodes)


@pytest.mark.parametrize(
    "opcodes",
    [
        tensor((2, 4), (3, 1)),  # more numbers than the storage has
        tensor((2, 3), (4, 1)),  # strides that lead beyond it
        tensor((2, 3), (3, 1), offset=1),
        tensor((2, 3), (3, 1), offset=-1),
        tensor((2, 3), (-3, 1)),
        tensor((-2, -3), (3, 1)),
        tensor((1 << 20, 1 << 20), (0, 0)),  # a terabyte from one number
        tensor((1,) * 99, (1,) * 99),
        tensor(of=storage(numel=7)),
        tensor(of=storage(key="1")),
        tensor(of=storage(key="../data.pkl")),
        tensor(of=text("storage") + b"Q"),
        text("not a function") + b")R",
        storage() + b")R",
        b"ctorch\nFloatStorage\n)R",
        b")]R",
        b"}" + text("odd") + b"s",
        b")(" + text("x") + b"e",
        b"t",
        b"R",
        b"0",
        b"j\xff\xff\xff\xff",
        b"",
        b"]]",
        b"X\xff\xff\xff\xff",
        b"}" + b"](" * 3,
    ],
)
def test_damage_is_refused_in_one_line(tmp_path, opcodes):
    with pytest.raises(InputError, match=r"file.pt: (damaged|contains)") as caught:
        read(tmp_path, opcodes)
    assert "\n" not in str(caught.value)


def test_a_large_index_of_the_memo_costs_no_memory(tmp_path):
    assert read(tmp_path, b"]r\xff\xff\xff\x7f") == []  # pickle would reserve 32 GB


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "file.pt"
    for content, message in (
        (None, "no such file"),
        (b"", "not a file of torch.save; save it again with PyTorch 1.6"),
        (b"\x80\x02" + pickle.dumps(0), "not a file of torch.save"),
        (b"\x1f\x8b" + bytes(100), "not a file of torch.save"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        ((GOLDEN / "model_mul.pt").read_bytes()[:-30], "damaged"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_torch(path)
    with pytest.raises(InputError, match="damaged"):
        read_torch(archive(path, b"", compression=zipfile.ZIP_DEFLATED, **{"data/0": bytes(10_000)}))
    with pytest.raises(InputError, match="big-endian"):
        read(tmp_path, tensor(), byteorder=b"big")


def test_every_flipped_byte_gives_an_array_or_one_line(tmp_path):
    whole_file = io.BytesIO()
    archive(whole_file, whole(b"}" + text("log_k") + tensor() + b"s"), **{"data/0": FLOATS.tobytes()})
    content = bytearray(whole_file.getvalue())
    for position in range(len(content)):
        content[position] ^= 0xFF
        (tmp_path / "file.pt").write_bytes(content)
        try:
            assert isinstance(read_torch(tmp_path / "file.pt"), object)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - some bytes do not matter
        content[position] ^= 0xFF


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("metabolismgraph.formats.torch_file._LARGEST", 1000)
    with pytest.raises(InputError, match="larger than"):
        read_torch(GOLDEN / "model_mul.pt")
