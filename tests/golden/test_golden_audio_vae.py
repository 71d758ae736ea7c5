"""The VAE computes the published function: posterior and mel, at full size and at a small one."""

import pytest
import torch
from torch import Tensor

from dmma_core.models.audio_codec.codec import LatentPosterior
from dmma_core.models.audio_codec.vae import VAE_16K, VAE_44K, Vae, VaeConfig
from helpers.golden import (
    GoldenFile,
    assert_close,
    fill_digest,
    fill_state_dict,
    golden_file,
    golden_shapes,
    thinned,
)

CONFIGS = {"vae_16k": VAE_16K, "vae_44k": VAE_44K}


def _transposed(x: Tensor) -> Tensor:
    """Between the reference's [B, channels, time] and DMMA's [B, time, channels]."""
    return x.transpose(1, 2)


def _vae(config: VaeConfig, file: GoldenFile) -> Vae:
    shapes = Vae(config).official_shapes()
    state = fill_state_dict(shapes, file.meta["salt"])
    assert fill_digest(state) == file.meta["fill"]["sha256"]
    state["data_mean"] = file["data_mean"] if "data_mean" in file else torch.zeros(1, config.num_mels, 1)
    state["data_std"] = file["data_std"] if "data_std" in file else torch.ones(1, config.num_mels, 1)
    return Vae.from_official(config, state)


@pytest.mark.parametrize("name", CONFIGS)
def test_official_keys_and_shapes(name: str) -> None:
    assert Vae(CONFIGS[name]).official_shapes() == golden_shapes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_full_size(name: str) -> None:
    file = golden_file(name)
    vae = _vae(CONFIGS[name], file)
    inputs = [key.removeprefix("in.mel") for key in file.names() if key.startswith("in.mel")]
    assert inputs
    for i in inputs:
        posterior = vae.encode(_transposed(file[f"in.mel{i}"]))
        _assert_posterior(posterior, file, f"encode{i}", _transposed(file[f"in.noise{i}"]))
        normalized_BFM = vae.decoder(_transposed(file[f"in.z{i}"]))
        assert_close(_transposed(normalized_BFM), file[f"decode{i}.mel_normalized"])
        assert_close(_transposed(vae.decode(_transposed(file[f"in.z{i}"]))), file[f"decode{i}.mel"])
        if f"encode{i}.mean_no_normalize" in file:  # the encoder alone, on a normalised spectrogram
            normalized_BFM = (_transposed(file[f"in.mel{i}"]) - vae.data_mean_M) / vae.data_std_M
            mean_BLC = vae.encoder(normalized_BFM).chunk(2, dim=-1)[0]
            assert_close(_transposed(mean_BLC), file[f"encode{i}.mean_no_normalize"])
    for key in file.names():
        if key.startswith("weight.") and ".after_norm" in key:
            own = vae.get_submodule(key.removeprefix("weight.").partition(".after_norm")[0]).weight[:, :, 0]
            assert_close(thinned(own, key), file[key])


@torch.no_grad()
def test_small() -> None:
    file = golden_file("vae_tiny")
    sizes = file.meta["config"]
    vae = _vae(VaeConfig(sizes["data_dim"], sizes["embed_dim"], sizes["hidden_dim"]), file)
    posterior = vae.encode(_transposed(file["in.mel_normalized"]))  # statistics 0 and 1
    assert_close(_transposed(posterior.mean_BLC), file["encode.mean"])
    assert_close(_transposed(posterior.std_BLC), file["encode.std"])
    assert_close(_transposed(vae.decode(_transposed(file["in.z"]))), file["decode.mel_normalized"])


def test_posterior_of_moments() -> None:
    """Mean, standard deviation and variance of given network outputs."""
    file = golden_file("diag_gaussian")
    vae = Vae(VaeConfig(num_mels=4, latent_channels=4, hidden_channels=4))
    vae.encoder = _Constant(_transposed(file["in.parameters"]))  # type: ignore[assignment]
    vae.data_mean_M, vae.data_std_M = torch.zeros(4), torch.ones(4)
    posterior = vae.encode(torch.zeros(1, 2, 4))
    assert_close(_transposed(posterior.mean_BLC), file["mean"])
    assert_close(_transposed(posterior.mean_BLC), file["mode"])
    assert_close(_transposed(posterior.std_BLC), file["std"])
    assert_close(_transposed(posterior.std_BLC.square()), file["var"])
    assert_close(_transposed(_reference_divergence(posterior)), file["kl"])


class _Constant(torch.nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Tensor:
        return self.value


def _reference_divergence(posterior: LatentPosterior) -> Tensor:
    """The reference's `kl`, in which only the square of the mean is halved; not used in DMMA."""
    variance = posterior.std_BLC.double().square()
    return 0.5 * posterior.mean_BLC.double().square() + variance - 1.0 - variance.log()


def _assert_posterior(posterior: LatentPosterior, file: GoldenFile, key: str, noise_BLC: Tensor) -> None:
    assert_close(_transposed(posterior.mean_BLC), file[f"{key}.mean"])
    assert_close(_transposed(posterior.std_BLC), file[f"{key}.std"])
    assert_close(_transposed(2.0 * posterior.std_BLC.log()), file[f"{key}.logvar"])
    assert_close(_transposed(posterior.sample(noise_BLC)), file[f"{key}.sample"])
    assert_close(_transposed(_reference_divergence(posterior)), file[f"{key}.kl"])
