"""`python extract_alone.py BASE DURATION_S`: an extraction in a separate process, to be killed by a test."""

import sys
from functools import partial

from dmma_core.job_configs import ExtractConfig
from helpers.random_bundle import load_random_bundle
from ray_jobs.extract import extract

if __name__ == "__main__":
    base, duration_s = sys.argv[1], float(sys.argv[2])
    config = ExtractConfig(
        manifest_uri=f"{base}/manifest",
        out_uri=f"{base}/features",
        bundle="tiny_random_weights",
        clips_per_shard=1,
        clips_per_batch=1,
        num_encoders=1,
    )
    extract(config, partial(load_random_bundle, duration_s))
