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


def test_edge_is_alike_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    array, outside = rng.integers(0, 200, (9, 8, 7)).astype(np.uint16), rng.random((9, 8, 7)) < 0.02
    with at_most(1):
        alone = values_on_edge(array, 200, outside)
    with at_most(2):
        np.testing.assert_array_equal(values_on_edge(array, 200, outside), alone)
