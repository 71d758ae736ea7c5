#!/usr/bin/env bash
# Submits a job to the Ray cluster at RAY_ADDRESS. Ray copies the project without .git, so the commit goes along in a
# variable and stands in the provenance of all that the job writes. Options of `ray job submit` may stand before the --.
#
#   infra/submit.sh -- dmma extract --config tiny manifest_uri=$PWD/manifest/demo out_uri=$PWD/features/demo
#   infra/submit.sh --no-wait -- dmma train --config tiny features_uri=$PWD/features/demo comparison_uri=$PWD/runs/demo
set -euo pipefail
cd "$(dirname "$0")/.."
command -v ray > /dev/null || source .venv/bin/activate
commit=$(python -c 'from dmma_core.provenance import git_commit; print(git_commit())')
exec ray job submit --working-dir . --runtime-env-json "{\"env_vars\": {\"DMMA_GIT_COMMIT\": \"$commit\"}}" "$@"
