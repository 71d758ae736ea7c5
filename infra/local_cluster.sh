#!/usr/bin/env bash
# A Ray head node on this machine, loopback only, that accepts jobs over HTTP as a rented cluster does.
#
#   infra/local_cluster.sh                       # in one terminal; Ctrl-C ends it
#   export RAY_ADDRESS=http://127.0.0.1:8265     # in another
#   infra/submit.sh -- dmma extract --config tiny manifest_uri=$PWD/manifest/demo out_uri=$PWD/features/demo
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv ] && source .venv/bin/activate
exec ray start --head --block --disable-usage-stats --node-ip-address 127.0.0.1 --port "${RAY_PORT:-6379}" \
  --include-dashboard true --dashboard-host 127.0.0.1 --dashboard-port "${RAY_JOB_PORT:-8265}" \
  --dashboard-agent-listen-port "${RAY_AGENT_PORT:-52365}" \
  --num-cpus "${RAY_CPUS:-$(($(nproc) > 4 ? $(nproc) : 4))}"
