#!/usr/bin/env bash
# GPUs of any cloud by SkyPilot, as a managed job: what is preempted is started again elsewhere.
#
#   RANN_NODES          machines (default 1)
#   RANN_ACCELERATORS   of each (default H100:8)
#
# RANN_WORKDIR is a mounted bucket there (file_mounts of your own SkyPilot config), or it is lost with the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/contract.sh
source launch/contract.sh

run sky jobs launch launch/skypilot.yaml --yes --num-nodes "${RANN_NODES:-1}" --gpus "${RANN_ACCELERATORS:-H100:8}" \
  --env "RANN_COMMAND=$(quoted "${TRAIN[@]}")"
