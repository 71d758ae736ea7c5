from pathlib import Path

import numpy as np
import pytest
import torch

from dmma_core.data.scenes import OBJECT_CLASSES
from dmma_core.errors import WeightsError
from dmma_core.evaluation.embed import TinyTaggerNetwork
from dmma_core.evaluation.tagger import EMBEDDING_WIDTH, TinyTagger, load_tagger, save_tagger
from dmma_core.evaluation.tagger_training import tagger_accuracy, train_tagger


def _tones(num_sounds: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """One second of a steady tone in noise, at any level; the class is its pitch."""
    generator = np.random.default_rng(seed)
    labels = [index % 3 for index in range(num_sounds)]
    times_s = np.arange(16_000) / 16_000
    waves = [
        10 ** generator.uniform(-2, -0.5) * np.sin(2 * np.pi * 300 * 3**label * generator.uniform(0.9, 1.1) * times_s)
        + 1e-3 * generator.standard_normal(16_000)
        for label in labels
    ]
    return np.stack(waves).astype(np.float32), labels


def test_a_few_steps_learn_to_classify_pitches_at_any_level() -> None:
    tagger = train_tagger(*_tones(48, seed=0), classes=("low", "middle", "high"), seed=0, num_steps=60)
    assert tagger_accuracy(tagger, *_tones(30, seed=1)) >= 0.9


def test_the_same_seed_trains_the_same_tagger() -> None:
    waves_BA, labels = _tones(12, seed=0)
    one, two = (train_tagger(waves_BA, labels, ("a", "b", "c"), seed=4, num_steps=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_shapes_and_size() -> None:
    tagger = TinyTagger(OBJECT_CLASSES)
    tagged = tagger(torch.zeros(2, 20_000))
    assert tagged.embedding_BD.shape == (2, EMBEDDING_WIDTH)
    assert tagged.logits_BG.shape == (2, len(OBJECT_CLASSES))
    assert sum(parameter.numel() for parameter in tagger.parameters()) < 200_000


def test_weights_round_trip_and_missing_or_wrong_ones_are_reported(tmp_path: Path) -> None:
    tagger = TinyTagger(("a", "b")).eval()
    save_tagger(tagger, {"accuracy": 0.5}, tmp_path)
    wave_BA = 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_tagger(tmp_path)(wave_BA).logits_BG, tagger(wave_BA).logits_BG)
    with pytest.raises(WeightsError, match="pretrain-tiny"):
        load_tagger(tmp_path / "nothing")
    (tmp_path / "tiny_tagger.json").write_text('{"classes": ["a", "b", "c"]}')
    with pytest.raises(WeightsError, match="cannot be loaded into the tiny tagger"):
        load_tagger(tmp_path)


def test_the_shipped_tagger_knows_the_rendered_classes() -> None:
    assert load_tagger().classes == OBJECT_CLASSES
    embedding_D, logits_G = TinyTaggerNetwork().embed(np.zeros(16_000, np.float32))
    assert embedding_D.shape == (EMBEDDING_WIDTH,)
    assert logits_G.shape == (len(OBJECT_CLASSES),)
