"""Consensus of several segmenters, against votes counted voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import ConfigError
from paxray.segmentation.combine import Rule, consensus, disputed_column

CATALOG = load_catalog()
SHAPE = (2, 3, 4)
NAMES = ("heart", "liver", "spleen")


def volume(
    masks: dict[str, np.ndarray | None], confidence: float | None = None, partial: bool = False
) -> LabelVolume:
    """A segmentation of these masks; None for a class that it cannot tell."""
    builder = LabelBuilder(SHAPE)
    everywhere = tuple(slice(0, n) for n in SHAPE)
    for name, mask in masks.items():
        if mask is None:
            builder.add_mask(
                name, everywhere, np.zeros(SHAPE, bool), status=Status.UNKNOWN, note="cannot tell"
            )
        else:
            status = Status.PARTIAL if partial and mask.any() else None
            builder.add_mask(
                name, everywhere, mask, status=status, confidence=confidence if mask.any() else None
            )
    return builder.finish(np.eye(4), CATALOG)


masks = st.lists(st.booleans(), min_size=24, max_size=24).map(lambda bits: np.reshape(bits, SHAPE))
segmentations = st.dictionaries(st.sampled_from(NAMES), st.none() | masks, min_size=1)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(segmentations, st.booleans()), min_size=1, max_size=4),
    st.sampled_from(["order", "majority"]),
)
def test_votes_are_counted_voxel_by_voxel(
    given_by: list[tuple[dict[str, np.ndarray | None], bool]], rule: Rule
) -> None:
    """Who could not look everywhere is asked only where it drew."""
    made = consensus([volume(one, partial=partial) for one, partial in given_by], rule, CATALOG)
    for name in NAMES:
        known = [(one[name], partial) for one, partial in given_by if one.get(name) is not None]
        votes = [mask for mask, _ in known]
        if not votes:
            if name in made.names:
                assert made.status[name] is Status.UNKNOWN
                assert made.notes[name] == "cannot tell"
            assert disputed_column(name) not in made.names
            continue
        in_part = [partial and mask.any() for mask, partial in known]
        count = np.sum(votes, axis=0)
        voters = np.sum([mask | (not part) for mask, part in zip(votes, in_part, strict=True)], axis=0)
        expected = votes[0]
        if rule == "majority":
            expected = np.where(2 * count == voters, votes[0], 2 * count > voters)
        np.testing.assert_array_equal(made.mask(name), expected)
        whole = Status.PARTIAL if all(in_part if rule == "majority" else in_part[:1]) else Status.PRESENT
        assert made.status[name] is (whole if expected.any() else Status.ABSENT)
        if len(votes) > 1:
            np.testing.assert_array_equal(made.mask(disputed_column(name)), (count > 0) & (count < voters))
        else:
            assert disputed_column(name) not in made.names


def test_confidence_is_of_those_who_are_heard() -> None:
    full = np.ones(SHAPE, bool)
    found = [volume({"heart": full}, 0.4), volume({"heart": full}, 0.8), volume({"heart": full})]
    assert consensus(found, "order", CATALOG).confidence == {"heart": 0.4}
    assert consensus(found, "majority", CATALOG).confidence == pytest.approx({"heart": 0.6})
    with pytest.raises(ConfigError, match="nothing to find a consensus of"):
        consensus([], "order", CATALOG)
