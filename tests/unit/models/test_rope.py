"""Rotation keeps norms and makes attention scores depend on distance alone."""

import torch

from dmma_core.models.rope import rotate, rotation_table

CPU = torch.device("cpu")


def test_scores_depend_on_the_distance_only() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 16)
    table = rotation_table(20, 16, 1.0, CPU)
    q_LHD, k_LHD = (rotate(x.expand(1, 20, 1, 16), table)[0, :, 0] for x in (q, k))
    scores = q_LHD @ k_LHD.T
    torch.testing.assert_close(scores[2, 7], scores[11, 16], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(q_LHD.norm(dim=-1), q.norm().expand(20))


def test_scaled_positions_equal_the_positions_they_align_with() -> None:
    fine, coarse = rotation_table(12, 8, 1.0, CPU), rotation_table(3, 8, 4.0, CPU)
    torch.testing.assert_close(coarse[0], fine[0][::4])
    torch.testing.assert_close(coarse[1], fine[1][::4])


def test_tables_stay_float32_for_half_precision_states() -> None:
    x = torch.randn(1, 5, 1, 8, dtype=torch.bfloat16)
    table = rotation_table(5, 8, 1.0, CPU)
    assert table[0].dtype == torch.float32
    assert rotate(x, table).dtype == torch.bfloat16
