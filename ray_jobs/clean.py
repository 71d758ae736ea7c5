"""clean: a folder of videos and sounds becomes a manifest of good clips and a list of rejected files with reasons."""

import logging
from collections.abc import Sequence

from dmma_core.data.cleaning import (
    captions_text,
    count_by,
    cut_text,
    find_media,
    rejected_lines,
    select_clips,
    warn_about,
)
from dmma_core.data.labels import LabelTable, caption_from_name, clip_id_of, read_labels
from dmma_core.data.manifest import check_manifest_folder, write_manifest
from dmma_core.errors import MediaError
from dmma_core.job_configs import CleanConfig
from dmma_core.log import progress
from dmma_core.storage import paths
from ray_jobs.common.job import Job
from ray_jobs.common.runtime import connect, plain_errors
from ray_jobs.stages.check import check_files

_log = logging.getLogger("ray_jobs.clean")


def plan(config: CleanConfig) -> Sequence[str]:
    files = find_media(config.videos_uri)
    labels, _ = _tables(config)
    paths.check_writable(config.out_uri)
    clip_ids = {clip_id_of(uri) for uri in files}
    captions = {each: labels.captions.get(each, "") if labels else caption_from_name(each) for each in clip_ids}
    rules = config.cleaning
    by_hash = f"{rules.val_fraction:.0%} val, {rules.test_fraction:.0%} test, by a hash of the clip id"
    return [
        f"Check {len(files)} files of {config.videos_uri} for clips. {cut_text(rules)}",
        captions_text(captions, config.captions_uri),
        f"Splits: {config.splits_uri or by_hash}.",
        f"Write the manifest and the rejected list to {config.out_uri}.",
    ]


def run(config: CleanConfig) -> None:
    files = find_media(config.videos_uri)
    labels, splits = _tables(config)
    paths.check_writable(config.out_uri)
    with connect(), plain_errors():
        checks = list(progress(check_files(files, config.cleaning), "clean", len(files), unit="file"))
    clips, rejected = select_clips(checks, config.dataset, config.cleaning, labels, splits)
    manifest = write_manifest(config.out_uri, config.dataset, clips, rejected)
    print(f"{len(clips)} clips ({count_by(clip.split for clip in clips)}) in {config.out_uri}.")
    print("".join(f"{line}\n" for line in rejected_lines(rejected, "files", config.out_uri)), end="")
    if not clips:
        raise MediaError(
            f"None of the {len(files)} files of {config.videos_uri} became a clip.",
            reason="no_clips",
            remedy=f"Read {config.out_uri}/rejected.parquet, then fix the files or loosen the checks (cleaning.*).",
        )
    print(captions_text({clip.clip_id: clip.caption for clip in clips}, config.captions_uri))
    print(cut_text(config.cleaning, checks))
    warn_about(clips)
    _log.info("Fingerprint %s.", manifest.fingerprint)


def _tables(config: CleanConfig) -> tuple[LabelTable | None, LabelTable | None]:
    """Labels and splits. Raises StorageError where the manifest would overwrite them, or files that are not its own."""
    check_manifest_folder(config.out_uri, [uri for uri in (config.captions_uri, config.splits_uri) if uri])
    labels = read_labels(config.captions_uri) if config.captions_uri else None
    return labels, read_labels(config.splits_uri) if config.splits_uri else None


JOB = Job(
    name="clean",
    summary="Check a folder of videos and write the manifest of good clips and the list of rejected files.",
    config=CleanConfig,
    plan=plan,
    run=run,
    example="dmma clean videos_uri=data/videos captions_uri=data/captions.tsv out_uri=manifest/mine",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
