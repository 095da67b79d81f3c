#!/usr/bin/env bash
# A TPU slice of a cluster that was made with xpk (https://github.com/AI-Hypercomputer/xpk).
#
#   RANN_CLUSTER    the cluster
#   RANN_ZONE       its zone
#   RANN_TPU_TYPE   such as v5litepod-16 or v6e-16
#   RANN_IMAGE      the image of launch/docker.sh, ACCELERATOR=tpu
#   RANN_NAME       name of the workload (default rann-jax)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/contract.sh
source launch/contract.sh
required RANN_CLUSTER RANN_ZONE RANN_TPU_TYPE RANN_IMAGE

# The grace period is the time after SIGTERM to save, as in gke/jobset.yaml; xpk's own 30 s do not last for an evaluation.
run xpk workload create --cluster "$RANN_CLUSTER" --zone "$RANN_ZONE" --workload "${RANN_NAME:-rann-jax}" \
  --tpu-type "$RANN_TPU_TYPE" --docker-image "$RANN_IMAGE" --max-restarts 100 \
  --termination-grace-period-seconds 300 \
  --command "exec $(quoted "${TRAIN[@]}")"
