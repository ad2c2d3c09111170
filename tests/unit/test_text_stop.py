"""Stop strings are found however the text is cut, and no text is held back needlessly."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webllm.errors import RequestError
from webllm.text.stop import StopMatcher


def _run(stop: list[str], deltas: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stop)
    shown = ""
    for delta in deltas:
        text, matched = matcher.feed(delta)
        shown += text
        if matched:
            return shown, True
    return shown + matcher.flush(), False


def test_a_stop_string_over_several_deltas() -> None:
    matcher = StopMatcher(["</end>"])
    assert matcher.feed("abc <") == ("abc ", False)
    assert matcher.feed("/en") == ("", False)
    assert matcher.feed("d> more") == ("", True)
    assert matcher.feed("more") == ("", True)
    assert matcher.flush() == ""


def test_text_that_only_looked_like_a_stop_string_comes_later() -> None:
    matcher = StopMatcher(["aab"])
    assert matcher.feed("aa") == ("", False)
    assert matcher.feed("a") == ("a", False)
    assert matcher.feed("c") == ("aac", False)
    assert matcher.feed("a") == ("", False)
    assert matcher.flush() == "a"


def test_what_is_complete_first_counts_then_the_longest() -> None:
    assert _run(["abcd", "bc"], ["xabcd"]) == ("xa", True)
    assert _run(["bc", "abc"], ["xabc"]) == ("x", True)
    assert _run([], ["abc", ""]) == ("abc", False)


def test_an_empty_stop_string_is_the_callers_mistake() -> None:
    with pytest.raises(RequestError, match="empty") as caught:
        StopMatcher(["a", ""])
    assert caught.value.field == "stop"


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.text("abc", max_size=20),
    st.lists(st.integers(0, 20)),
)
def test_cuts_make_no_difference(stop: list[str], text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    deltas = [text[a:b] for a, b in pairwise(edges)]
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    expected = (text[: min(ends)[1]], True) if ends else (text, False)
    assert _run(stop, deltas) == _run(stop, list(text)) == expected


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1), st.text("abc", max_size=20))
def test_no_more_is_held_than_might_begin_a_stop_string(stop: list[str], text: str) -> None:
    matcher = StopMatcher(stop)
    shown, matched = matcher.feed(text)
    held = matcher.flush()
    if not matched:
        assert shown + held == text
        ends = [text[i:] for i in range(len(text) + 1)]
        assert held == next(end for end in ends if any(s.startswith(end) for s in stop))
