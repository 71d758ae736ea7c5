"""Training that starts from other weights than a seed's: those of a run or of a published network."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dmma_core.config_loading import config_to_dict
from dmma_core.data.feature_schema import FeatureSchema
from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import CheckpointError, ConfigError, IncompleteError, StorageError, WeightsError
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.embeddings import DepthFusion
from dmma_core.models.initialisation import initialise
from dmma_core.models.mmaudio_interop import to_official
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.models.presets import config_for_features, mmdit_config
from dmma_core.storage.run_folder import EMA, MARKER, Checkpoint, RunFolder
from dmma_core.tensors import TensorSpec
from dmma_core.training.arm import ArmPlan, new_state, train_arm
from dmma_core.training.checkpoint import write_checkpoint
from dmma_core.training.initial_weights import (
    bundle_of_published,
    find_init,
    import_published,
    network_from,
    published_state,
    require_init,
)
from helpers.features import synthetic_schema, write_feature_set
from helpers.training import ALONE, small_plan, with_recipe


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_feature_set(tmp_path_factory.mktemp("data") / "features")


@pytest.fixture(scope="module")
def trained(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    plan = small_plan(tmp_path_factory.mktemp("runs"), store)
    assert train_arm(plan, ALONE)
    return RunFolder(plan.run_uri).checkpoint()


def starting_from(plan: ArmPlan, start: Checkpoint) -> ArmPlan:
    return replace(plan, init=start)


def test_an_arm_starts_with_the_averaged_network_and_its_statistics(
    store: FeatureStore, trained: Checkpoint, tmp_path: Path
) -> None:
    state = new_state(starting_from(small_plan(tmp_path, store), trained), store, ALONE)
    expected = trained.read(EMA)
    assert all(torch.equal(value, expected[name]) for name, value in state.model.state_dict().items())
    assert not torch.equal(state.model.latent_std, torch.ones(40))


def test_depth_that_is_added_is_normalised_by_the_features_of_the_new_run(
    store: FeatureStore, trained: Checkpoint, tmp_path: Path
) -> None:
    plan = starting_from(small_plan(tmp_path, store, "scalars"), trained)
    assert plan.normalisation is not None
    fusion = new_state(plan, store, ALONE).model.depth_fusion
    assert isinstance(fusion, DepthFusion)
    torch.testing.assert_close(fusion.scalar_mean, torch.tensor(plan.normalisation.depth_scalars.mean))
    torch.testing.assert_close(fusion.scalar_std, torch.tensor(plan.normalisation.depth_scalars.std))


@pytest.mark.parametrize("depth", ["rgb_like", "both"])
def test_depth_that_is_added_has_no_effect_until_trained(
    depth: str, store: FeatureStore, trained: Checkpoint, tmp_path: Path
) -> None:
    plan = starting_from(small_plan(tmp_path, store, depth), trained)
    require_init(trained, plan.model, store.schema)
    model, baseline = (network_from(trained, replace(plan.model, depth=kind), 0) for kind in (depth, "off"))
    features, latent, time = features_for(plan.model), torch.randn(2, plan.model.latent_length, 40), torch.rand(2)
    with torch.inference_mode():
        assert torch.equal(model(latent, time, features), baseline(latent, time, features))
    assert train_arm(plan, ALONE)


def test_a_run_resumes_only_with_its_initial_weights(store: FeatureStore, trained: Checkpoint, tmp_path: Path) -> None:
    plan = starting_from(small_plan(tmp_path, store, num_steps=2), trained)
    assert train_arm(plan, ALONE)
    longer = with_recipe(plan, loop={"num_steps": 4})
    with pytest.raises(CheckpointError, match="from other initial weights"):
        train_arm(replace(longer, init=None), ALONE)
    assert train_arm(longer, ALONE)


def test_an_arm_that_resumes_does_not_need_init(store: FeatureStore, trained: Checkpoint, tmp_path: Path) -> None:
    """The same command, run again with twice the steps: init has been deleted, or trained further."""
    init = RunFolder(str(tmp_path / "init"))
    shutil.copytree(trained.uri, init.checkpoint_uri(trained.step))
    plan = starting_from(small_plan(tmp_path, store, num_steps=2), init.checkpoint())
    assert train_arm(plan, ALONE)
    shutil.rmtree(init.uri)
    longer = with_recipe(plan, loop={"num_steps": 4})
    assert plan.init is not None
    assert train_arm(replace(longer, init=None, init_sha256=plan.init.record["files"][EMA]), ALONE)
    assert RunFolder(plan.run_uri).checkpoint().record["init_sha256"] == trained.record["files"][EMA]
    shutil.rmtree(plan.run_uri)
    with pytest.raises(CheckpointError, match="which is missing"):
        train_arm(replace(longer, init=None, init_sha256="x"), ALONE)


def test_arms_of_a_comparison_start_from_the_same_weights(store: FeatureStore, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store, keep_checkpoints=9)
    assert train_arm(plan, ALONE)
    run = RunFolder(plan.run_uri)
    first, last = (run.checkpoint(step).record["files"][EMA] for step in (2, 4))
    assert find_init(run, None, set()).step == 4 and find_init(run, 2, set()).step == 2
    assert find_init(run, None, {first}).step == 2 and find_init(run, 4, {last}).step == 4
    for step, init_sha256 in ((4, {first}), (None, {"x"}), (None, {first, last})):
        with pytest.raises(CheckpointError, match=r"Another arm started from other weights .* init_step"):
            find_init(run, step, init_sha256)
    with pytest.raises(IncompleteError, match="step 3, only of"):
        find_init(run, 3, set())


def test_deepmmaudio_s_form_is_refused_before_training(tmp_path: Path) -> None:
    schema = published_schema(8.0)
    baseline, target = (config_for_features("small_16k", schema, depth, "deepmmaudio") for depth in ("off", "rgb_like"))
    model = config_to_dict(replace(baseline, version=2))
    start = Checkpoint(str(tmp_path), 0, {"files": {EMA: ""}, "model": model, "features": schema.to_dict()})
    require_init(start, replace(baseline, version=2), schema)
    with pytest.raises(ConfigError, match="version 2 network unchanged. Use fusion=concat"):
        require_init(start, replace(target, version=2), schema)


def test_a_network_without_latent_statistics_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = to_official(MMDiT(mmdit_config("small_16k")))
    state = {name: torch.zeros(value.shape) for name, value in shapes.items()}
    for name in ("latent_mean", "latent_std"):
        without = {**state, name: torch.full_like(state[name], torch.nan)}
        with pytest.raises(WeightsError, match=r"small_16k contains no latent statistics .* would be NaN"):
            import_published(without, published_schema(8.0), RunFolder(str(tmp_path)), {})
    assert not list(tmp_path.rglob(MARKER))


def test_another_architecture_is_refused_with_its_numbers(store: FeatureStore, trained: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"hidden_width 32 \(expected: 64\)"):
        require_init(trained, config_for_features("tiny", store.schema), store.schema)


def test_depth_cannot_be_removed(store: FeatureStore, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store, "both", num_steps=2)
    assert train_arm(plan, ALONE)
    with pytest.raises(ConfigError, match=r"depth both \(expected: off\)"):
        require_init(RunFolder(plan.run_uri).checkpoint(), replace(plan.model, depth="off"), store.schema)


def test_features_of_other_encoders_are_refused(store: FeatureStore, trained: Checkpoint, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store)
    encoders = {**store.schema.encoders, "depth": "other"}
    require_init(trained, plan.model, replace(store.schema, encoders=encoders))  # it never saw depth
    with pytest.raises(CheckpointError, match="other encoders: clip differ"):
        require_init(trained, plan.model, replace(store.schema, encoders={**encoders, "clip": "other"}))


def published_schema(duration_s: float) -> FeatureSchema:
    """The tiny lengths of `duration_s` with the widths that the published 16 kHz network takes."""
    small = synthetic_schema(duration_s)
    widths = {"latent_mean": 20, "latent_std": 20, "rgb": 1024, "depth": 1024, "depth_scalars": 4, "sync": 768}
    tensors = tuple(replace(spec, shape=(spec.shape[0], widths[spec.name])) for spec in small.tensors)
    return replace(small, bundle="mmaudio_16k", tensors=tensors, text=TensorSpec("text", (77, 1024)))


@pytest.mark.slow
def test_a_published_network_becomes_a_run_and_learns_depth(tmp_path: Path) -> None:
    """At full size, with random weights in the published layout; and for another duration than eight seconds."""
    original = MMDiT(mmdit_config("small_16k"))
    initialise(original, seed=5)
    original.set_latent_statistics(torch.full((20,), 0.5), torch.full((20,), 2.0))
    state = to_official(original)
    assert bundle_of_published(state) == "mmaudio_16k"
    schema = published_schema(1.0)
    checkpoint = import_published(state, schema, RunFolder(str(tmp_path / "run")), {"file": "x.pth"})
    assert checkpoint.record["arm"] == "small_16k"
    found = RunFolder(str(tmp_path / "run")).checkpoint()
    back = published_state(found)
    assert all(torch.equal(value, back[name]) for name, value in state.items())
    config = config_for_features("small_16k", schema, "both")
    require_init(found, config, schema)
    model = network_from(found, config, seed=0)
    assert torch.equal(model.latent_std, original.latent_std)
    original.set_lengths(config.latent_length, config.rgb_length, config.sync_length)
    features, latent, time = features_for(config), torch.randn(2, config.latent_length, 20), torch.rand(2)
    with torch.inference_mode():
        assert torch.equal(model(latent, time, features), original(latent, time, features))


def test_an_imported_network_is_no_training_run(store: FeatureStore, trained: Checkpoint, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store)
    record = {key: value for key, value in trained.record.items() if key not in ("files", "schema_version")}
    write_checkpoint(RunFolder(plan.run_uri), {EMA: trained.read(EMA)}, {**record, "step": 0, "source": {}})
    with pytest.raises(CheckpointError, match="holds only a network"):
        train_arm(plan, ALONE)


def test_an_import_leaves_a_training_run_alone(trained: Checkpoint) -> None:
    run = RunFolder(trained.uri.rsplit("/checkpoints/", 1)[0])
    with pytest.raises(StorageError, match="holds a training run"):
        import_published({}, published_schema(1.0), run, {})


def test_a_bundle_of_other_widths_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = to_official(MMDiT(mmdit_config("small_44k")))
    with pytest.raises(ConfigError, match=r"latent features of width 40.*Use the bundle mmaudio_44k"):
        import_published(state, published_schema(1.0), RunFolder(str(tmp_path)), {})
    assert not list(tmp_path.rglob(MARKER))


def test_a_checkpoint_without_the_averaged_network_is_refused(
    store: FeatureStore, trained: Checkpoint, tmp_path: Path
) -> None:
    record = {key: value for key, value in trained.record.items() if key not in ("files", "schema_version")}
    bare = write_checkpoint(RunFolder(str(tmp_path)), {"model.safetensors": trained.read("model.safetensors")}, record)
    with pytest.raises(CheckpointError, match=r"has no ema\.safetensors"):
        require_init(bare, small_plan(tmp_path, store).model, store.schema)


def features_for(config: MMDiTConfig) -> ConditionFeatures:
    """Random features of two clips."""
    present_B = torch.ones(2, dtype=torch.bool)
    return ConditionFeatures(
        rgb_BTD=torch.randn(2, config.rgb_length, config.rgb_width),
        depth_BTD=torch.randn(2, config.rgb_length, config.rgb_width),
        depth_scalars_BTK=torch.randn(2, config.rgb_length, config.num_depth_scalars),
        sync_BSD=torch.randn(2, config.sync_length, config.sync_width),
        text_BND=torch.randn(2, config.text_length, config.text_width),
        present_video_B=present_B,
        present_depth_B=present_B,
        present_text_B=present_B,
    )
