"""Single layers, rotation and time embedding against the published ones, converted by `mmaudio_interop`."""

import pytest
import torch
from torch import Tensor, nn

from dmma_core.models import mmaudio_interop as interop
from dmma_core.models.blocks import FinalBlock, FusedBlock, JointBlock
from dmma_core.models.embeddings import TimeEmbedding, sinusoidal_embedding, time_frequencies
from dmma_core.models.layers import GatedFeedForward, TokenMap
from dmma_core.models.rope import rotate, rotation_table
from helpers.golden import GoldenFile, assert_close, fill_tensor, golden_file, thinned

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file() -> GoldenFile:
    return golden_file("layers")


def fill(module: nn.Module, entries: list[interop.Entry], salt: str) -> None:
    """Fill `module` by the published names in `entries`."""
    current = module.state_dict()
    state = {}
    for entry in entries:
        shapes = [value.shape for value in entry.to_official(current[entry.ours])]
        values = [fill_tensor(name, shape, salt) for name, shape in zip(entry.official, shapes, strict=True)]
        state[entry.ours] = entry.to_ours(values)
    module.load_state_dict(state)


@pytest.mark.parametrize(("name", "num_taps"), [("mlp", 1), ("convmlp3", 3), ("convmlp7", 7)])
@torch.inference_mode()
def test_feed_forward(file: GoldenFile, name: str, num_taps: int) -> None:
    width = file.meta["dim"]
    module = GatedFeedForward(width, 4 * width, num_taps)
    assert module.down.width == file.meta["hidden"][name]
    fill(module, interop.feed_forward_entries(module, "", ""), file.meta["salt"])
    assert_close(module(file[f"in.{name}"]), file[name])


@torch.inference_mode()
def test_convolution(file: GoldenFile) -> None:
    x, expected = file["in.clconv7"], file["clconv7"]
    module = TokenMap(x.shape[-1], expected.shape[-1], 7)
    fill(module, interop.layer_entries(module, "", ""), file.meta["salt"])
    assert_close(module(x), expected)


@pytest.mark.parametrize("condition", ["c1", "cN", "norot"])
@torch.inference_mode()
def test_fused_block(file: GoldenFile, condition: str) -> None:
    width, heads = file.meta["dim"], file.meta["heads"]
    block = FusedBlock(width, heads, 3, 256)
    fill(block, interop.stream_entries(block, "", ""), file.meta["salt"])
    table = rotation_table(file.meta["length"], width // heads, 1.0, CPU)
    if condition == "norot":
        table = (torch.ones_like(table[0]), torch.zeros_like(table[1]))
    c = file["in.blk.cN" if condition == "cN" else "in.blk.c1"]
    result = block(file["in.blk.x"], torch.nn.functional.silu(c), None, table)
    assert_close(result, file[f"block.{condition}"])


@pytest.mark.parametrize("last", [False, True])
@torch.inference_mode()
def test_joint_block(file: GoldenFile, last: bool) -> None:
    width, heads, length = file.meta["dim"], file.meta["heads"], file.meta["length"]
    block = JointBlock(width, heads, 256, last)
    fill(block, interop.joint_entries(block, "", ""), file.meta["salt"])
    rgb = file["in.jb.clip"]
    global_c, extended_c = (torch.nn.functional.silu(file[f"in.blk.{name}"]) for name in ("c1", "cN"))
    results = block(
        file["in.blk.x"],
        rgb,
        file["in.jb.text"],
        global_c,
        extended_c,
        None,
        rotation_table(length, width // heads, 1.0, CPU),
        rotation_table(rgb.shape[1], width // heads, length / rgb.shape[1], CPU),
    )
    for result, name in zip(results, ("latent", "clip", "text"), strict=True):
        assert_close(result, file[f"joint.pre_only{last}.{name}"])


@torch.inference_mode()
def test_final_block(file: GoldenFile) -> None:
    block = FinalBlock(file.meta["dim"], file["final"].shape[-1])
    fill(block, interop.final_entries(block, "", ""), file.meta["salt"])
    condition = torch.nn.functional.silu(file["in.blk.c1"])
    assert_close(block(file["in.blk.x"], condition), file["final"])


def test_rotation() -> None:
    rope = golden_file("rope")
    for index, (length, width, base, scaling) in enumerate(rope.meta["specs"]):
        assert base == 10_000.0
        cos, signed_sin = rotation_table(int(length), int(width), scaling, CPU)
        half = int(width) // 2
        key = rope.key_of(f"rot{index}")
        assert_close(thinned(cos[None, :, 0, :half], key), rope[key][..., 0, 0])
        assert_close(thinned(signed_sin[None, :, 0, half:], key), rope[key][..., 1, 0])
        assert torch.equal(signed_sin[..., :half], -signed_sin[..., half:])
        x_BHLD = rope[f"in.x{index}"]
        order = interop._half_split(int(width))
        table = (cos[: x_BHLD.shape[2]], signed_sin[: x_BHLD.shape[2]])
        rotated = rotate(x_BHLD[..., order].transpose(1, 2), table).transpose(1, 2)
        assert_close(rotated[..., order.argsort()], rope[f"apply{index}"])


def test_time_embedding() -> None:
    time = golden_file("timestep_embedder")
    for version in ("v1", "v2"):
        spec = time.meta[version]
        waves, period = spec["frequency_embedding_size"], spec["max_period"]
        assert_close(time_frequencies(waves, period, CPU), time[f"{version}.freqs"])
        assert_close(sinusoidal_embedding(time["in.t"], waves, period), time[f"{version}.sinusoid"], 1e-3)
        module = TimeEmbedding(spec["dim"], waves, period)
        entries = [
            *interop.layer_entries(module.first, "first", "mlp.0"),
            *interop.layer_entries(module.second, "second", "mlp.2"),
        ]
        fill(module, entries, time.meta["salt"])
        result: Tensor = module(time["in.t"])
        assert_close(result, time[f"{version}.out"], 2e-5 if version == "v1" else 1e-3)
