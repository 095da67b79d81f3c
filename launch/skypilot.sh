#!/usr/bin/env bash
# GPUs of any cloud, as a managed SkyPilot job: SkyPilot restarts a preempted job elsewhere.
#
#   RANN_NODES          number of machines (default 1)
#   RANN_ACCELERATORS   accelerators of each machine (default H100:8)
#
# RANN_WORKDIR must be in a mounted bucket (file_mounts in your own SkyPilot config); otherwise it is lost with the
# machine.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/contract.sh
source launch/contract.sh

run sky jobs launch launch/skypilot.yaml --yes --num-nodes "${RANN_NODES:-1}" --gpus "${RANN_ACCELERATORS:-H100:8}" \
  --env "RANN_COMMAND=$(quoted "${TRAIN[@]}")"
