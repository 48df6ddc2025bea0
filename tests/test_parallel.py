"""Work shared out among threads: every part once, in order, within the limit."""

from __future__ import annotations

import threading

import pytest

from paxray.parallel import at_most, processors, share, threads


@pytest.mark.parametrize("limit", [1, 2, None])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_parts_cover_the_range_in_order(limit: int | None, n: int) -> None:
    with at_most(limit):
        parts = share(n, lambda start, stop: list(range(start, stop)))
        assert len(parts) <= max(1, threads())
    assert [item for part in parts for item in part] == list(range(n))


def test_a_limit_holds_within_its_block_alone() -> None:
    with at_most(1):
        assert threads() == 1
        with at_most(None):
            assert threads() == processors()
        assert share(5, lambda start, stop: threading.get_ident()) == [threading.get_ident()]
    assert threads() == processors()


def test_an_error_in_a_part_is_the_callers() -> None:
    def fail(start: int, stop: int) -> None:
        raise ValueError(f"{start}")

    with pytest.raises(ValueError, match="0"):
        share(4, fail)
