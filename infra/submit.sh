#!/usr/bin/env bash
# Submits a job to the Ray cluster at RAY_ADDRESS. Ray copies the project without .git, so a variable passes the commit to the
# provenance of everything that the job writes. Options of `ray job submit` may be given before the --.
#
#   infra/submit.sh -- dmma extract --config tiny manifest_uri=$PWD/manifest/demo out_uri=$PWD/features/demo
#   infra/submit.sh --no-wait -- dmma train --config tiny features_uri=$PWD/features/demo comparison_uri=$PWD/runs/demo
set -euo pipefail
cd "$(dirname "$0")/.."
command -v ray > /dev/null || source .venv/bin/activate
commit=$(python -c 'from dmma_core.provenance import git_commit; print(git_commit())')
exec ray job submit --working-dir . --runtime-env-json "{\"env_vars\": {\"DMMA_GIT_COMMIT\": \"$commit\"}}" "$@"
