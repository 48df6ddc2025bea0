"""Compiled passes over labels do what numpy's indexing says, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxray.anatomy.voxels import (
    count_inside,
    count_values,
    look_up,
    look_up_pairs,
    replace_inside,
    value_boxes,
    values_on_edge,
)
from paxray.parallel import at_most

DTYPES = st.sampled_from([np.uint8, np.uint16, np.uint32])
SHAPES = st.tuples(*[st.integers(1, 7)] * 3)


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES, dtype=DTYPES, n_values=st.integers(1, 9), seed=st.integers(0, 99), threads=st.integers(1, 3)
)
def test_against_numpy(
    shape: tuple[int, int, int], dtype: type, n_values: int, seed: int, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, n_values, shape).astype(dtype)
    mask = rng.random(shape) < 0.4
    table = rng.integers(0, n_values, n_values).astype(dtype)
    with at_most(threads):
        np.testing.assert_array_equal(
            count_values(array, n_values), np.bincount(array.ravel(), minlength=n_values)
        )
        np.testing.assert_array_equal(
            count_inside(array, mask, n_values), np.bincount(array[mask], minlength=n_values)
        )
        np.testing.assert_array_equal(look_up(table, array), table[array])
        flags = rng.integers(0, 4, shape).astype(np.uint8)
        of_pairs = rng.integers(0, 99, (n_values, 4)).astype(np.uint16)
        np.testing.assert_array_equal(look_up_pairs(of_pairs, array, flags), of_pairs[array, flags])
        boxes = value_boxes(array, n_values)
        replaced = array.copy()
        replace_inside(replaced[:, ::-1], mask[:, ::-1], table)
    np.testing.assert_array_equal(replaced, np.where(mask, table[array], array))
    for value in range(n_values):
        at = np.argwhere(array == value)[:, ::-1]
        expected = [at.min(axis=0), at.max(axis=0)] if len(at) else np.zeros((2, 3))
        np.testing.assert_array_equal(boxes[value], expected)


def test_in_place_where_types_agree() -> None:
    array, table = np.array([[[0, 1, 2]]], np.uint16), np.array([2, 0, 1], np.uint16)
    result = look_up(table, array, in_place=True)
    assert np.shares_memory(result, array)
    assert result.ravel().tolist() == [2, 0, 1]
    assert not np.shares_memory(look_up(table.astype(np.uint32), array, in_place=True), array)


def test_a_value_beyond_the_table_is_an_error_and_no_stray_write() -> None:
    with pytest.raises(IndexError, match="outside the table"):
        count_values(np.array([0, 1, 7, 7], np.uint16), 3)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, dtype=DTYPES, seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.1, 0.6]))
def test_edge_by_its_definition(shape: tuple[int, int, int], dtype: type, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    array, outside = rng.integers(0, 60, shape).astype(dtype), rng.random(60) < share
    padded = np.pad(outside[array], 1, constant_values=True)  # a face is an edge, too
    beside = np.zeros(shape, bool)
    for axis in range(3):
        for step in (0, 2):
            at = tuple(slice(step, step + n) if a == axis else slice(1, 1 + n) for a, n in enumerate(shape))
            beside |= padded[at]
    expected = np.isin(np.arange(60), array[beside])
    np.testing.assert_array_equal(values_on_edge(array, 60, outside), expected)


def test_edge_is_alike_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    array, outside = rng.integers(0, 200, (9, 8, 7)).astype(np.uint16), rng.random(200) < 0.02
    with at_most(1):
        alone = values_on_edge(array, 200, outside)
    with at_most(2):
        np.testing.assert_array_equal(values_on_edge(array, 200, outside), alone)
