"""Files of JSON lines, apart from what they hold; tests/test_journal.py tears and damages one everywhere."""

import json

import pytest

from metabolismgraph.errors import InputError
from metabolismgraph.json_lines import append_line, read_lines


def test_what_is_appended_is_read_and_a_torn_line_is_not(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, '{"a": "é"}')
    append_line(path, "[1]")
    with path.open("ab") as stream:
        stream.write(b'{"torn')
    assert read_lines(path, lambda value: value, "") == [{"a": "é"}, [1]]
    append_line(path, json.dumps("after"))
    assert path.read_text() == '{"a": "é"}\n[1]\n"after"\n'


def test_a_damaged_line_is_named_with_its_fault_and_the_remedy(tmp_path):
    def small(value):
        if value > 2:
            raise ValueError("too large")
        return value

    path = tmp_path / "lines.jsonl"
    path.write_text("1\n2\n3\n")
    with pytest.raises(InputError, match=r"lines.jsonl, line 3: damaged \(too large\); throw it away"):
        read_lines(path, small, "throw it away")
    path.write_text("1\n{2\n")
    with pytest.raises(InputError, match=r"line 2: damaged \(not JSON\)"):
        read_lines(path, small, "throw it away")


def test_a_missing_file_is_not_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_lines(tmp_path / "lines.jsonl", dict, "")
