#!/usr/bin/env bash
# All hosts of a Cloud TPU slice, by gcloud. Each host has the repository in ~/rann-jax, installed with the extra `tpu`.
#
#   RANN_TPU    name of the TPU VM
#   RANN_ZONE   its zone
#
# JAX finds the hosts by itself. After a preempted slice has been recreated, the same command resumes the run.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/contract.sh
source launch/contract.sh
required RANN_TPU RANN_ZONE

run gcloud compute tpus tpu-vm ssh "$RANN_TPU" --zone "$RANN_ZONE" --worker=all \
  --command "cd rann-jax && exec $(quoted "${TRAIN[@]}")"
