"""Every kind of published network, at a small size: accepted forms of files, and refused files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dmma_core.encoders.bundle import load_bundle
from dmma_core.encoders.clip import TINY, ClipEncoder, full_clip, tiny_clip
from dmma_core.encoders.depth import midas_depth, tiny_depth
from dmma_core.encoders.dpt import TINY_DPT, Dpt
from dmma_core.encoders.loading import fill_with_random_weights
from dmma_core.encoders.midas_small import MidasSmall
from dmma_core.encoders.synchformer import TINY_RANDOM, SynchformerEncoder, full_synchformer
from dmma_core.errors import WeightsError
from dmma_core.models.audio_codec.anti_aliased import kaiser_sinc_filter
from dmma_core.models.audio_codec.bigvgan import BigVgan, BigVganConfig
from dmma_core.models.audio_codec.vae import Vae, VaeConfig
from dmma_core.models.mmaudio_interop import from_official, to_official
from dmma_core.models.mmdit import MMDiT
from dmma_core.storage.state_dicts import read_state_dict
from helpers.conditions import shaken, short_config
from helpers.golden import fill_state_dict
from ray_jobs.tools.weights import main

FLOW = short_config()
DEEP = replace(FLOW, depth="rgb_like", fusion="deepmmaudio")
VAE = VaeConfig(num_mels=12, latent_channels=3, hidden_channels=8)
BIGVGAN = BigVganConfig(6, 16, (4, 2), (8, 4), final="tanh")
BIGVGAN_V2 = BigVganConfig(6, 16, (4, 2), (8, 4), final="clamp")
State = dict[str, Tensor]


@dataclass(frozen=True)
class Kind:
    """A network's published state dict, that of another variant, and the function that loads a file as the network's
    own tensors.
    """

    state: Callable[[], State]
    other: Callable[[], State]
    load: Callable[[str], Mapping[str, Tensor]]


def flow_network(config: Any = FLOW) -> State:
    return {**to_official(shaken(MMDiT(config))), "latent_rot": torch.zeros(3)}


def vae(config: VaeConfig = VAE) -> State:
    statistics = {"data_mean": torch.zeros(1, 12, 1), "data_std": torch.ones(1, 12, 1)}
    return {**fill_state_dict(Vae(config).official_shapes(), "unit"), **statistics}


def vocoder(config: BigVganConfig) -> State:
    shapes = BigVgan(config).official_shapes()
    filters = {name: kaiser_sinc_filter().reshape(shape) for name, shape in shapes.items() if name.endswith(".filter")}
    return {**fill_state_dict(shapes, "unit"), **filters}


def weight_normed(plain: State) -> State:
    """Kernels as magnitude and direction, as stored by training."""
    state = dict(plain)
    for name in [name for name, value in plain.items() if name.endswith("weight") and value.ndim == 3]:
        state[f"{name}_v"] = state.pop(name)
        state[f"{name}_g"] = torch.ones(len(plain[name]), 1, 1)
    return state


def clip(embed_dim: int = TINY.embed_dim) -> State:
    return dict(fill_with_random_weights(ClipEncoder(replace(TINY, embed_dim=embed_dim)), "c").model.state_dict())


def synchformer(width: int = TINY_RANDOM.width) -> State:
    network = fill_with_random_weights(SynchformerEncoder(replace(TINY_RANDOM, width=width)), "s")
    return {**network.state_dict(), "afeat_extractor.x": torch.zeros(2)}


def dpt(width: int = TINY_DPT.width) -> State:
    network = fill_with_random_weights(Dpt(replace(TINY_DPT, width=width)), "d")
    return {**network.state_dict(), "pretrained.model.head.weight": torch.zeros(2)}


@cache
def small_midas() -> MidasSmall:
    return fill_with_random_weights(MidasSmall(), "m")


def midas_small() -> State:
    state = {name: value.clone() for name, value in small_midas().state_dict().items()}
    return {**state, "scratch.refinenet4.resConfUnit1.conv1.weight": torch.zeros(2)}


def loaded(network: Any, path: str) -> Mapping[str, Tensor]:
    network.load(read_state_dict(path), path)
    return {name: value.clone() for name, value in network.state_dict().items()}


KINDS = {
    "flow network": Kind(
        flow_network, lambda: flow_network(DEEP), lambda path: from_official(read_state_dict(path), FLOW).state_dict()
    ),
    "flow network with depth": Kind(
        lambda: flow_network(DEEP), flow_network, lambda path: from_official(read_state_dict(path), DEEP).state_dict()
    ),
    "VAE": Kind(
        vae,
        lambda: vae(replace(VAE, latent_channels=4)),
        lambda path: Vae.from_official(VAE, read_state_dict(path)).state_dict(),
    ),
    "BigVGAN": Kind(
        lambda: vocoder(BIGVGAN),
        lambda: vocoder(BIGVGAN_V2),
        lambda path: BigVgan.from_official(BIGVGAN, read_state_dict(path)).state_dict(),
    ),
    "BigVGAN-v2": Kind(
        lambda: weight_normed(vocoder(BIGVGAN_V2)),
        lambda: weight_normed(vocoder(BIGVGAN)),
        lambda path: BigVgan.from_official(BIGVGAN_V2, read_state_dict(path)).state_dict(),
    ),
    "CLIP": Kind(clip, lambda: clip(embed_dim=32), lambda path: tiny_clip(path).model.state_dict()),
    "Synchformer": Kind(
        synchformer, lambda: synchformer(width=32), lambda path: loaded(SynchformerEncoder(TINY_RANDOM), path)
    ),
    "DPT": Kind(dpt, lambda: dpt(width=32), lambda path: tiny_depth(path).network.state_dict()),
    "MiDaS small": Kind(midas_small, dpt, lambda path: loaded(small_midas(), path)),
}
FORMS: dict[str, Callable[[State], Any]] = {
    "float16": lambda state: narrowed(state, torch.float16),
    "bfloat16": lambda state: {"ema": narrowed(state, torch.bfloat16)},
    "weights": lambda state: {"weights": state, "it": 300_000},
    "ema": lambda state: {"ema": state},
    "state_dict": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 1},
    "generator": lambda state: {"generator": state},
    "model": lambda state: {"model": state},
}


def narrowed(state: State, dtype: torch.dtype) -> State:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}


def widened(content: Any) -> Any:
    if isinstance(content, Tensor):
        return content.float() if content.is_floating_point() else content
    return {name: widened(value) for name, value in content.items()} if isinstance(content, dict) else content


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_harmless_forms_are_accepted(kind: Kind, form: Callable[[State], Any], tmp_path: Path) -> None:
    state, plain = kind.state(), str(tmp_path / "plain.safetensors")
    content = form(state)
    torch.save(content, tmp_path / "x.pth")
    rounded = content if content.keys() == state.keys() else content.get("ema", state)
    save_file({name: value.contiguous().clone() for name, value in widened(rounded).items()}, plain)
    tensors, expected = kind.load(str(tmp_path / "x.pth")), kind.load(plain)
    assert tensors.keys() == expected.keys()
    for name, value in tensors.items():
        assert value.dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_another_variant_and_damaged_values_are_refused(kind: Kind, tmp_path: Path) -> None:
    path = str(tmp_path / "x.pth")
    torch.save(kind.other(), path)
    with pytest.raises(WeightsError, match=r"cannot be loaded into .*: \d+ (missing|unexpected|of another shape) \("):
        kind.load(path)
    state = kind.state()
    name = next(name for name, value in state.items() if name.endswith(("weight", "weight_v")) and value.ndim >= 2)
    state[name] = state[name].clone().index_fill_(0, torch.tensor(0), torch.nan)
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"cannot be loaded into .*: 1 not finite \(\S+\)\. Fetch the file again"):
        kind.load(path)
    del state[name]
    torch.save(state, path)
    with pytest.raises(WeightsError, match="missing|only one"):
        kind.load(path)


class Exploit:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("was run",)


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "code": ("x.pth", lambda path: torch.save({"state_dict": {"a": Exploit()}}, path)),
    "empty": ("x.pth", Path.touch),
    "folder": ("x.pth", Path.mkdir),
    "half": ("x.pth", lambda path: halved(path, lambda: torch.save(vae(), path))),
    "half safetensors": ("x.safetensors", lambda path: halved(path, lambda: save_file(vae(), path))),
    "text": ("x.pth", lambda path: path.write_text("<!DOCTYPE html>")),
    "absent": ("x.pth", lambda path: None),
    "no network": ("x.pth", lambda path: torch.save({"optimizer": {"lr": 1.0}}, path)),
}
LOADERS: dict[str, Callable[[str, str], object]] = {
    "VAE": lambda path, good: load_bundle("mmaudio_44k", 8.0, weights={"vae": path, "vocoder": good}),
    "BigVGAN": lambda path, good: load_bundle("mmaudio_16k", 8.0, weights={"vae": good, "vocoder": path}),
    "CLIP": lambda path, good: full_clip(path),
    "Synchformer": lambda path, good: full_synchformer(path),
    "DPT-Hybrid": lambda path, good: midas_depth(path, "dpt_hybrid_384"),
    "DPT-Large": lambda path, good: midas_depth(path, "dpt_large_384"),
    "MiDaS small": lambda path, good: midas_depth(path, "midas_v21_small_256"),
    "tiny CLIP": lambda path, good: tiny_clip(path),
    "tiny depth": lambda path, good: tiny_depth(path),
}


def halved(path: Path, write: Callable[[], object]) -> None:
    write()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("filename", "damage"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_every_loader_reports_a_bad_file_with_one_error_message(
    loader: Callable[[str, str], object],
    filename: str,
    damage: Callable[[Path], object],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    damage(tmp_path / filename)
    save_file(vae(), tmp_path / "good.safetensors")
    with pytest.raises(WeightsError) as raised:
        loader(str(tmp_path / filename), str(tmp_path / "good.safetensors"))
    assert raised.value.remedy and "\n" not in str(raised.value)
    assert "was run" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("encoder", "message"),
    [("clip=absent.safetensors", "absent.safetensors are missing"), ("vae=x", "has no weights for 'vae'")],
)
def test_an_import_accepts_files_in_place_of_the_encoders(
    encoder: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(vae(), tmp_path / "x.safetensors")
    flags = ["--run", str(tmp_path / "run"), "--bundle", "tiny", "--encoder", encoder]
    assert main(["import", str(tmp_path / "x.safetensors"), *flags]) != 0
    assert message in capsys.readouterr().err


def test_an_encoder_without_a_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import", "mmaudio_small_16k", "--encoder", "vae"])
    assert "'vae' is not ROLE=FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("filename", "damage"),
    [*DAMAGES.values(), ("x.safetensors", lambda path: save_file(vae(), path))],
    ids=[*DAMAGES, "another network"],
)
def test_importing_a_bad_file_prints_one_error_message(
    filename: str, damage: Callable[[Path], object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(tmp_path / filename)
    assert main(["import", str(tmp_path / filename), "--run", str(tmp_path / "run")]) == 1
    printed = capfd.readouterr()
    assert printed.err.startswith("dmma weights: ") and printed.err.count("\n") == 1 and "was run" not in printed.out
    assert not (tmp_path / "run").exists()
