"""The flow network computes the published functions: forward, conditions, guidance, sampling, other durations."""

import pytest
import torch
from torch import Tensor

from dmma_core.flow.guidance import guidance_weights, guided_velocity
from dmma_core.flow.solver import integrate
from dmma_core.models.initialisation import parameter_count
from dmma_core.models.mmaudio_interop import identify_variant, official_shapes, to_official
from dmma_core.models.mmdit import Conditions, MMDiT
from dmma_core.models.presets import mmdit_config
from dmma_core.models.winograd import winograd_convolutions
from helpers.golden import (
    GoldenFile,
    assert_close,
    fill_state_dict,
    golden_file,
    golden_json,
    golden_names,
    golden_shapes,
)
from helpers.golden_mmdit import TOLERANCE, golden_features, golden_network

TINY = golden_names("mm_tiny_v[0-9]", "deep_tiny_v[0-9]", default="mm_tiny_v1")
FULL = golden_names("mm_*_full", "deep_*_full", default="mm_small_44k_full")
VARIANTS = ["small_16k", "small_44k", "medium_44k", "large_44k", "large_44k_v2"]


@pytest.fixture(scope="module", params=TINY)
def case(request: pytest.FixtureRequest) -> tuple[GoldenFile, MMDiT]:
    file = golden_file(request.param)
    return file, golden_network(file)


@torch.inference_mode()
def test_forward(case: tuple[GoldenFile, MMDiT]) -> None:
    file, model = case
    tolerance = TOLERANCE[model.config.version]
    velocity = model(file["in.latent"], file["in.t"], golden_features(file))
    assert_close(velocity, file["forward.flow"], tolerance)
    assert_close(velocity, file["predict_flow.flow"], tolerance)


def assert_conditions(model: MMDiT, conditions: Conditions, file: GoldenFile, prefix: str) -> None:
    assert_close(conditions.rgb_BTE, file[f"{prefix}.clip_f"])
    assert_close(conditions.text_BNE, file[f"{prefix}.text_f"])
    length = model.config.latent_length
    upsampled = model.upsampling(conditions.sync_BSE.shape[1], length, torch.device("cpu"))(conditions.sync_BSE)
    assert_close(upsampled, file[f"{prefix}.sync_f"])
    rgb_BE, text_BE = file[f"{prefix}.clip_f_c"], file[f"{prefix}.text_f_c"]
    assert_close(model.rgb_pool(conditions.rgb_BTE.mean(dim=1)), rgb_BE)
    assert_close(model.text_pool(conditions.text_BNE.mean(dim=1)), text_BE)
    assert_close(conditions.global_BE, model.global_mlp(rgb_BE + text_BE))


@torch.inference_mode()
def test_conditions(case: tuple[GoldenFile, MMDiT]) -> None:
    file, model = case
    assert_conditions(model, model.embed_conditions(golden_features(file)), file, "cond")


@torch.inference_mode()
def test_empty_conditions_and_negative_text(case: tuple[GoldenFile, MMDiT]) -> None:
    file, model = case
    batch_size = file["in.latent"].shape[0]
    assert_conditions(model, model.empty_conditions(batch_size), file, "empty")
    negative = model.empty_conditions(batch_size, file["in.negative_text_features"])
    assert_conditions(model, negative, file, "empty_neg")


def guided(file: GoldenFile, model: MMDiT, scale: float, negative: bool, latent_BLC: Tensor, time: Tensor) -> Tensor:
    weights = guidance_weights(scale)
    negative_text_BND = file["in.negative_text_features"] if negative else None
    conditions = model.branch_conditions(golden_features(file), list(weights), negative_text_BND)
    return guided_velocity(model.velocity, latent_BLC, time, conditions, weights)


@torch.inference_mode()
def test_guided_velocity(case: tuple[GoldenFile, MMDiT]) -> None:
    file, model = case
    for name in file.names():
        if name.startswith("ode.flow_cfg"):
            scale, _, negative = name.removeprefix("ode.flow_cfg").partition("_")
            velocity = guided(file, model, float(scale), negative == "neg", file["in.latent"], file["ode.t"])
            assert_close(velocity, file[name], TOLERANCE[model.config.version])


@torch.inference_mode()
def test_sampling(case: tuple[GoldenFile, MMDiT]) -> None:
    file, model = case
    features, weights = golden_features(file), guidance_weights(4.5)
    tolerance = TOLERANCE[model.config.version]

    def sample(num_steps: int, negative: bool = False, backwards: bool = False) -> Tensor:
        negative_text_BND = file["in.negative_text_features"] if negative else None
        conditions = model.branch_conditions(features, list(weights), negative_text_BND)
        start, end = (1.0, 0.0) if backwards else (0.0, 1.0)

        def velocity(state: Tensor, time: Tensor) -> Tensor:
            return guided_velocity(model.velocity, state, time, conditions, weights)

        with winograd_convolutions(model):
            return integrate(velocity, file["in.x0"], "euler", num_steps, start, end)

    stored = [name for name in file.names() if name.startswith("euler")]
    assert stored
    for name in stored:
        steps, _, what = name.removeprefix("euler").partition(".")
        final = sample(int(steps), negative=what == "x1_neg", backwards=what == "to_prior")
        assert_close(model.unnormalize(final) if what == "x1_unnormalized" else final, file[name], tolerance)


@torch.inference_mode()
def test_another_duration(case: tuple[GoldenFile, MMDiT]) -> None:
    file, model = case
    before = model.config
    lengths = file.meta["len2"]
    model.set_lengths(lengths["latent_seq_len"], lengths["clip_seq_len"], lengths["sync_seq_len"])
    try:
        velocity = model(file["len2.in.latent"], file["len2.in.t"], golden_features(file, "len2.in."))
        assert_close(velocity, file["len2.forward.flow"], TOLERANCE[before.version])
    finally:
        model.set_lengths(before.latent_length, before.rgb_length, before.sync_length)


def test_state_dict_round_trip(case: tuple[GoldenFile, MMDiT]) -> None:
    file, model = case
    expected = fill_state_dict(official_shapes(model.config), file.meta["salt"])
    exported = to_official(model)
    assert list(exported) == list(expected)
    assert all(torch.equal(exported[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
@torch.inference_mode()
def test_full_size(name: str) -> None:
    file = golden_file(name)
    model = golden_network(file)
    conditions = model.embed_conditions(golden_features(file))
    tolerance = TOLERANCE[model.config.version]
    assert_close(model.velocity(file["in.latent"], file["in.t"], conditions), file["forward.flow"], tolerance)
    assert_close(conditions.rgb_BTE[:, ::16, ::32], file["cond.clip_f.slice"], tolerance)
    assert_close(conditions.text_BNE[:, ::16, ::32], file["cond.text_f.slice"], tolerance)


@pytest.mark.parametrize("depth", [False, True], ids=["mmaudio", "deepmmaudio"])
@pytest.mark.parametrize("preset", VARIANTS)
def test_keys_shapes_and_counts_of_every_variant(preset: str, depth: bool) -> None:
    name = f"{'deepmmaudio' if depth else 'mmaudio'}_{preset}"
    config = mmdit_config(preset, depth="rgb_like", fusion="deepmmaudio") if depth else mmdit_config(preset)
    assert official_shapes(config) == golden_shapes(name)
    num_all, trainable = parameter_count(config)
    counts = golden_json("keys/_params")[name]
    assert num_all == round(counts["params_M"] * 1e6)
    assert trainable == round(counts["trainable_M"] * 1e6)


@pytest.mark.parametrize("depth", [False, True], ids=["mmaudio", "deepmmaudio"])
def test_every_variant_is_recognised(depth: bool) -> None:
    for preset in VARIANTS:
        prefix = "deepmmaudio" if depth else "mmaudio"
        state = {key: torch.empty(shape, device="meta") for key, shape in golden_shapes(f"{prefix}_{preset}").items()}
        assert identify_variant(state)[0] == (f"deepmmaudio_{preset}" if depth else preset)
