import numpy as np
import pytest

from dmma_core.evaluation.metrics.divergence import kl_divergences


def test_kl_of_two_known_distributions():
    reference, generated = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    values_B = kl_divergences(np.log(generated)[None] + 3.0, np.log(reference)[None])
    assert values_B == pytest.approx([expected])


def test_kl_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match="not pairs"):
        kl_divergences(np.zeros((2, 3)), np.zeros((3, 3)))
