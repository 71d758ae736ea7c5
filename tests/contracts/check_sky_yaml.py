"""Parse, validate and price one task with SkyPilot itself. Runs in a process of its own: SkyPilot binds $HOME at import.

HOME=<folder with a catalog> python check_sky_yaml.py sky/train_depth.yaml NAME=VALUE …    -> one JSON line
"""

import json
import sys
from pathlib import Path
from unittest import mock

import yaml
from sky.clouds import gcp

import sky
from sky import optimizer


def plan(path: str, envs: dict[str, str]) -> dict[str, object]:
    """What SkyPilot would rent for this task. Only Google's own answers are replaced: enabled, quota, image size."""
    config = yaml.safe_load(Path(path).read_text())
    task = sky.Task.from_yaml_config(config, env_overrides=list(envs.items()))
    task.validate()
    with sky.Dag() as dag:
        dag.add(task)
    reservations = "sky.clouds.utils.gcp_utils.list_reservations_for_instance_type_in_zone"
    with (
        mock.patch("sky.check.get_cached_enabled_clouds_or_refresh", lambda *a, **k: [sky.clouds.GCP()]),
        mock.patch("sky.check.check_capability", lambda *a, **k: None),
        mock.patch(reservations, lambda *a, **k: []),
        mock.patch.object(gcp.GCP, "_get_image_size", classmethod(lambda cls, image: 50.0)),
        mock.patch.object(gcp.GCP, "check_quota_available", classmethod(lambda cls, resources: True)),
    ):
        optimizer.Optimizer.optimize(dag, quiet=True)
    best = task.best_resources
    return {"instance_type": best.instance_type, "region": best.region, "dollars_an_hour": best.get_cost(3600)}


if __name__ == "__main__":
    print(json.dumps(plan(sys.argv[1], dict(pair.split("=", 1) for pair in sys.argv[2:]))))
