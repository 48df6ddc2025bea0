"""How many of a vocabulary's channels a data set holds, and what is known of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from paxray.anatomy.channels import Channels
from paxray.dataset.layout import Layout
from paxray.dataset.reader import Dataset

STATUSES = ("present", "partial", "absent", "unknown")


@dataclass(frozen=True)
class ChannelCoverage:
    """One channel over all cases of a data set.

    Attributes
    ----------
    name, class_name
        The channel as its vocabulary calls it, and the class it shows.
    cases
        Cases by status: ``present``, ``partial``, ``absent``, ``unknown``. A class that the data set does not
        hold is unknown in all.
    cut
        Cases in which the class has voxels and the scan cuts it off.
    """

    name: str
    class_name: str
    cases: dict[str, int]
    cut: int


def coverage(dataset: Dataset, channels: Channels) -> list[ChannelCoverage]:
    """Count, for each channel, the cases in which its class came out present, partial, absent or unknown.

    Only the label tables' status columns are read.
    """
    known: dict[str, Counter[str]] = {}
    cut: Counter[str] = Counter()
    n_cases = 0
    for shard in dataset.shards:
        rows = _statuses(Layout(dataset.root), shard)
        n_cases += len({case for case, _ in rows})
        for (_, name), (status, is_cut) in rows.items():
            known.setdefault(name, Counter())[status] += 1
            cut[name] += is_cut
    out = []
    for name, class_name in zip(channels.names, channels.classes, strict=True):
        found = known.get(class_name, Counter())
        cases = {status: found[status] for status in STATUSES}
        cases["unknown"] += n_cases - found.total()
        out.append(ChannelCoverage(name, class_name, cases, cut[class_name]))
    return out


def _statuses(layout: Layout, shard: str) -> dict[tuple[str, str], tuple[str, bool]]:
    """``(case, class)`` to its status in 3D, which all views of a case share, and whether the scan cuts it."""
    import pyarrow.parquet as pq

    columns = ["case_id", "class", "status", "cut_by_ct"]
    table: dict[str, list[Any]] = pq.read_table(layout.labels(shard), columns=columns).to_pydict()
    rows = zip(*(table[name] for name in columns), strict=True)
    return {(case, name): (status, bool(is_cut)) for case, name, status, is_cut in rows}
