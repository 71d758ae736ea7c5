"""All metrics of a report: their names, descriptions, and which direction is better."""

from dataclasses import dataclass

NETWORK = "tinytagger"
"""Suffix of every metric that uses the tiny tagger."""


@dataclass(frozen=True)
class MetricSpec:
    """`label` is for tables, `short` for charts.

    `better` is "lower" or "higher". `per_clip` is True for a mean over clips, False for a metric of the full set.
    """

    name: str
    label: str
    better: str
    unit: str
    meaning: str
    group: str
    short: str
    per_clip: bool = True


_TIMING, _DISTANCE, _SOUND = "Timing", "Distance test", "Sound"

METRIC_SPECS = (
    MetricSpec(
        "distance_spearman", "Level follows 1/distance (Spearman)", "higher", "",
        "Rank correlation of level and 1/distance over the frames of clips whose distance changes.",
        _DISTANCE, "Level follows 1/distance",
    ),
    MetricSpec(
        "distance_slope_sign", "Louder when approaching, softer when receding", "higher", "",
        "Share of approaching or receding objects whose level changes in the right direction.",
        _DISTANCE, "Louder when approaching",
    ),
    MetricSpec(
        "distance_spearman_across_clips", "Near clips louder than far ones (Spearman)", "higher", "",
        "Rank correlation of mean level and 1/distance over clips. Sources differ in loudness, so even true sound is "
        "below 1, and a sound that ignores its source can exceed the ground truth.",
        _DISTANCE, "Near clips louder", per_clip=False,
    ),
    MetricSpec(
        "envelope_l1", "Envelope L1 (E-L1)", "lower", "",
        "Mean difference of the RMS envelopes, full scale 1.", _TIMING, "Envelope L1",
    ),
    MetricSpec(
        "onset_accuracy", "Onset accuracy", "higher", "",
        "Share of the known onsets that are matched by an onset of the sound.", _TIMING, "Onset accuracy",
    ),
    MetricSpec(
        "onset_ap", "Onset average precision", "higher", "",
        "Average precision over the detected onsets, ordered by confidence.", _TIMING, "Onset AP",
    ),
    MetricSpec(
        "onset_f1", "Onset F1", "higher", "",
        "F1 score of matched against missed and false onsets.", _TIMING, "Onset F1",
    ),
    MetricSpec(
        "onset_accuracy_vs_detected", "Onset accuracy against detected onsets", "higher", "",
        "Share of the onsets detected in the true sound that are matched; the real onsets are not annotated.",
        _TIMING, "Onset accuracy (detected)",
    ),
    MetricSpec(
        "onset_ap_vs_detected", "Onset average precision against detected onsets", "higher", "",
        "Average precision against onsets detected in the true sound.", _TIMING, "Onset AP (detected)",
    ),
    MetricSpec(
        "onset_f1_vs_detected", "Onset F1 against detected onsets", "higher", "",
        "F1 against onsets detected in the true sound.", _TIMING, "Onset F1 (detected)",
    ),
    MetricSpec(
        f"FD_{NETWORK}", "Fréchet distance (tiny tagger)", "lower", "",
        "Distance of the two sets of sounds in the embedding space of the tiny tagger.",
        _SOUND, "Fréchet distance", per_clip=False,
    ),
    MetricSpec(
        f"KL_{NETWORK}", "KL divergence (tiny tagger)", "lower", "nats",
        "Difference of the tiny tagger's class probabilities for the true and the generated sound of a clip.",
        _SOUND, "KL divergence",
    ),
    MetricSpec(
        f"IS_{NETWORK}", "Inception score (tiny tagger)", "higher", "",
        "High for confident classes per sound and many classes in the set; one part, no splits.",
        _SOUND, "Inception score", per_clip=False,
    ),
    MetricSpec(
        "log_mel_distance_db", "Log-mel distance", "lower", "dB",
        "Mean difference of the spectrograms, timing included.", _SOUND, "Log-mel distance",
    ),
)  # fmt: skip
