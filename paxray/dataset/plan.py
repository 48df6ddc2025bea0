"""The plan: patient -> split -> shard, only ever appended to, so that nothing ever moves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from paxray.dataset.layout import SPLITS
from paxray.errors import ConfigError, DamageError
from paxray.files import write_atomic


@dataclass(frozen=True)
class Planned:
    """One case's place."""

    case_id: str
    patient_id: str
    split: str
    shard: str


def extend_plan(
    plan: list[Planned],
    cases: Iterable[tuple[str, str]],
    shares: Mapping[str, float],
    seed: int,
    shard_cases: int,
) -> list[Planned]:
    """Give every new case its split and shard; what is planned stays as it is.

    Parameters
    ----------
    plan
        What stands.
    cases
        ``(case_id, patient_id)``.
    shares
        Split to share of patients, summing to 1.
    seed
        Part of the hash that ranks patients.
    shard_cases
        Cases in a shard at most.

    Returns
    -------
    list of Planned
        The old plan followed by the new cases, split by split, in order of case id. The result does not
        depend on the order of `cases`. In a first plan the ranked patients are cut by the shares, no split
        with a share empty from three patients up; a later patient goes where hash and shares say; a known
        patient's new case follows its patient. New cases open new shards.
    """
    known = {row.case_id: row for row in plan}
    split_of = {row.patient_id: row.split for row in plan}
    fresh = []
    for case_id, patient_id in cases:
        if case_id not in known:
            fresh.append((case_id, patient_id))
        elif known[case_id].patient_id != patient_id:
            raise ConfigError(
                f"case '{case_id}' is planned for another patient",
                expected=f"patient '{known[case_id].patient_id}'",
                found=f"patient '{patient_id}'",
                do="give the new case an id of its own; nothing planned ever moves",
            )
    patients = sorted({patient for _, patient in fresh} - split_of.keys(), key=lambda p: _hash(p, seed))
    if plan:
        split_of |= {patient: _split_by_hash(_hash(patient, seed), shares) for patient in patients}
    else:
        split_of |= dict(zip(patients, _cut(len(patients), shares), strict=True))

    out = list(plan)
    for split in SPLITS:
        mine = sorted((case, patient) for case, patient in fresh if split_of[patient] == split)
        first = 1 + max((int(r.shard.rsplit("-", 1)[1]) for r in plan if r.split == split), default=-1)
        out += [
            Planned(case, patient, split, f"{split}-{first + n // shard_cases:05d}")
            for n, (case, patient) in enumerate(mine)
        ]
    return out


def _hash(patient_id: str, seed: int) -> float:
    """A patient's place in [0, 1)."""
    value = hashlib.blake2b(f"{seed}:{patient_id}".encode(), digest_size=8).digest()
    return int.from_bytes(value, "big") / 2**64


def _split_by_hash(place: float, shares: Mapping[str, float]) -> str:
    """The split whose interval of cumulated shares holds a place."""
    upto = 0.0
    chosen = ""
    for split, share in shares.items():
        if share <= 0:
            continue
        upto += share
        chosen = split
        if place < upto:
            break
    return chosen


def _cut(patients: int, shares: Mapping[str, float]) -> list[str]:
    """Splits of ranked patients: largest remainders, then one taken from the fullest for each empty split."""
    exact = {split: share * patients for split, share in shares.items()}
    count = {split: int(value + 1e-9) for split, value in exact.items()}
    by_remainder = sorted(shares, key=lambda split: count[split] - exact[split])
    for split in by_remainder[: patients - sum(count.values())]:
        count[split] += 1
    if patients >= 3:
        for split, share in shares.items():
            if share > 0 and count[split] == 0:
                count[max(count, key=lambda s: count[s])] -= 1
                count[split] = 1
    return [split for split in shares for _ in range(count[split])]


def write_plan(path: Path, plan: list[Planned]) -> None:
    """Write ``plan.parquet`` atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ("case_id", "patient_id", "split", "shard")
    table = pa.table({c: pa.array([getattr(row, c) for row in plan], pa.string()) for c in columns})
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def read_plan(path: Path) -> list[Planned]:
    """Read ``plan.parquet``; an absent file is an empty plan."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return []
    try:
        rows = pq.read_table(path).to_pylist()
        return [Planned(**row) for row in rows]
    except (pa.ArrowException, OSError, TypeError) as error:
        raise DamageError("the plan cannot be read", where=path.name, found=str(error)) from error
