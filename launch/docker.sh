#!/usr/bin/env bash
# Build the image that gke.sh and xpk.sh run. Takes no RANN_CONFIG: the image holds every experiment.
#
#   RANN_IMAGE    name of the image, with the registry that it will be pushed to
#   ACCELERATOR   cpu, cuda or tpu
set -euo pipefail
cd "$(dirname "$0")/.."
export RANN_CONFIG=none RANN_WORKDIR=none
# shellcheck source=launch/contract.sh
source launch/contract.sh
required RANN_IMAGE ACCELERATOR

run docker build --file launch/Dockerfile --build-arg "ACCELERATOR=$ACCELERATOR" --tag "$RANN_IMAGE" .
