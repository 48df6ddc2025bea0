"""When two backends agree."""

from __future__ import annotations

import numpy as np

from paxray.projection.project import Projection
from paxray.projection.want import FACTS


def assert_same(found: Projection, expected: Projection) -> None:
    """Equal but for float32: integrals within 1e-5 of the maximum, labels bit for bit."""
    assert expected.image is not None
    assert found.image is not None
    scale = max(float(expected.image.max()), 1e-9)
    np.testing.assert_allclose(found.image, expected.image, atol=1e-5 * scale)
    np.testing.assert_allclose(found.share, expected.share, atol=1e-5 * scale)
    np.testing.assert_array_equal(found.presence, expected.presence)
    np.testing.assert_array_equal(found.incomplete, expected.incomplete)
    np.testing.assert_allclose(found.path_mm, expected.path_mm, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.entry_mm, expected.entry_mm, rtol=1e-6, atol=2e-4)
    np.testing.assert_allclose(found.exit_mm, expected.exit_mm, rtol=1e-6, atol=2e-4)
    assert found.facts is not None
    assert expected.facts is not None
    for name in FACTS.names or ():
        np.testing.assert_allclose(
            found.facts[name], expected.facts[name], rtol=1e-5, atol=1e-3, err_msg=name
        )
