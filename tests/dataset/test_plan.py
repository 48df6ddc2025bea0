"""The plan never moves, depends on no order, and keeps patients together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxray.dataset.plan import Planned, extend_plan, read_plan, write_plan
from paxray.errors import ConfigError, DamageError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
CASES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 60)), min_size=0, max_size=80, unique_by=lambda c: c[0]
)


def named(cases: list[tuple[int, int]]) -> list[tuple[str, str]]:
    return [(f"case-{c}", f"patient-{p}") for c, p in cases]


def extend(plan: list[Planned], cases: list[tuple[str, str]], shard_cases: int = 3) -> list[Planned]:
    return extend_plan(plan, cases, SHARES, 0, shard_cases)


@given(cases=CASES, order=st.randoms())
def test_order_of_the_table_does_not_matter(cases: list[tuple[int, int]], order: object) -> None:
    shuffled = list(cases)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert extend([], named(cases)) == extend([], named(shuffled))


@given(first=CASES, second=CASES)
def test_nothing_ever_moves(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    known = dict(first)
    later = [(c, known.get(c, p)) for c, p in second]
    plan = extend([], named(first))
    longer = extend(plan, named(first + [c for c in later if c[0] not in known]))
    assert longer[: len(plan)] == plan
    old_shards = {row.shard for row in plan}
    assert not old_shards & {row.shard for row in longer[len(plan) :]}, "new cases open new shards"


@given(first=CASES, second=CASES)
def test_a_patient_is_in_one_split(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    known = dict(first)
    plan = extend(extend([], named(first)), named([c for c in second if c[0] not in known]))
    split: dict[str, str] = {}
    for row in plan:
        assert split.setdefault(row.patient_id, row.split) == row.split


@given(cases=CASES, shard_cases=st.integers(1, 7))
def test_shards_are_of_one_split_and_not_too_large(cases: list[tuple[int, int]], shard_cases: int) -> None:
    plan = extend([], named(cases), shard_cases)
    for shard in {row.shard for row in plan}:
        rows = [row for row in plan if row.shard == shard]
        assert 1 <= len(rows) <= shard_cases
        assert {row.split for row in rows} == {shard.rsplit("-", 1)[0]}


@given(patients=st.integers(3, 300))
def test_first_plan_keeps_the_shares_and_leaves_no_split_empty(patients: int) -> None:
    plan = extend([], [(f"c{n}", f"p{n}") for n in range(patients)])
    for split, share in SHARES.items():
        count = sum(row.split == split for row in plan)
        assert count >= 1
        assert abs(count - share * patients) < 2


@pytest.mark.parametrize("patients", [1, 2])
def test_one_or_two_patients_go_to_the_largest_splits(patients: int) -> None:
    plan = extend([], [(f"c{n}", f"p{n}") for n in range(patients)])
    assert plan[0].split == "train"


def test_later_patients_follow_hash_and_shares() -> None:
    plan = extend([], [("a", "a")])
    later = extend(plan, [(f"c{n}", f"p{n}") for n in range(2000)])
    shares = {s: sum(r.split == s for r in later[1:]) / 2000 for s in SHARES}
    for split, share in SHARES.items():
        assert shares[split] == pytest.approx(share, abs=0.04)


def test_a_case_cannot_change_its_patient() -> None:
    plan = extend([], [("a", "p1")])
    with pytest.raises(ConfigError, match="another patient"):
        extend(plan, [("a", "p2")])


def test_a_split_without_share_gets_nobody() -> None:
    cases = [(f"c{n}", f"p{n}") for n in range(50)]
    plan = extend_plan([], cases, {"train": 1.0, "val": 0.0, "test": 0.0}, 0, 8)
    plan = extend_plan(
        plan, [(f"d{n}", f"q{n}") for n in range(50)], {"train": 1.0, "val": 0.0, "test": 0.0}, 0, 8
    )
    assert {row.split for row in plan} == {"train"}


def test_written_and_read(tmp_path: Path) -> None:
    plan = extend([], named([(n, n // 2) for n in range(20)]))
    write_plan(tmp_path / "plan.parquet", plan)
    assert read_plan(tmp_path / "plan.parquet") == plan
    assert read_plan(tmp_path / "none.parquet") == []
    (tmp_path / "plan.parquet").write_bytes(b"torn")
    with pytest.raises(DamageError, match="plan cannot be read"):
        read_plan(tmp_path / "plan.parquet")
