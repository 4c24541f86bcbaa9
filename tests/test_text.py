"""Text of unknown origin, made harmless."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from metabolismgraph.text import FencedText, one_line, printable, visible


@given(st.text(), st.integers(3, 50))
def test_one_line_is_one_and_no_longer_than_said(text, limit):
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1


@given(st.text(st.characters()))
def test_nothing_in_a_visible_line_is_invisible(text):
    line = visible(text)
    assert line
    assert not {unicodedata.category(c) for c in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text())
def test_printable_keeps_lines_and_their_length(text):
    found = printable(text, "?")
    assert [len(line) for line in found.split("\n")] == [len(line) for line in text.split("\n")]
    assert all(c.isprintable() or c == "\n" for c in found)


@given(st.lists(st.text(), min_size=1))
def test_data_cannot_close_its_fence(contents):
    text = FencedText()
    text.say("Judge this.")
    for content in contents:
        text.data("runs", content)
    assert text.fenced().count(f"[end {text.mark()}]") == len(contents)
    assert text.fenced().startswith("Judge this.\n\n[data ")
