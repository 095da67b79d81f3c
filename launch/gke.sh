#!/usr/bin/env bash
# A TPU slice on GKE, by kubectl: launch/gke/service_account.yaml and launch/gke/jobset.yaml, filled in.
#
#   RANN_IMAGE        the image of launch/docker.sh, ACCELERATOR=tpu
#   RANN_BUCKET       bucket to mount at /runs, with hierarchical namespace: only there the renaming of a folder is
#                     atomic, without which a kill may leave half a checkpoint; RANN_WORKDIR is a folder under /runs
#   RANN_ACCELERATOR  node label, such as tpu-v5-lite-podslice or tpu-v6e-slice
#   RANN_TOPOLOGY     such as 4x4
#   RANN_HOSTS        hosts in the slice (4 for a v5e 4x4 with 4 chips per host)
#   RANN_CHIPS        chips per host (default 4)
#   RANN_NAME         name of the JobSet (default rann-jax)
#
# JAX finds the other processes through GKE. A dry run prints the manifests that would be applied.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/contract.sh
source launch/contract.sh
required RANN_IMAGE RANN_BUCKET RANN_ACCELERATOR RANN_TOPOLOGY RANN_HOSTS

text=$(cat launch/gke/service_account.yaml && echo --- && cat launch/gke/jobset.yaml)
fill() { text=${text//"\${$1}"/"$2"}; }
command="exec $(quoted "${TRAIN[@]}")"
command=${command//\\/\\\\}                   # escaped for a YAML string in double quotes
fill COMMAND "\"${command//\"/\\\"}\""
fill NAME "${RANN_NAME:-rann-jax}"
fill HOSTS "$RANN_HOSTS"
fill CHIPS "${RANN_CHIPS:-4}"
fill ACCELERATOR "$RANN_ACCELERATOR"
fill TOPOLOGY "$RANN_TOPOLOGY"
fill IMAGE "$RANN_IMAGE"
fill BUCKET "$RANN_BUCKET"

if $DRY_RUN; then
  printf '%s\n' "$text"
else
  kubectl apply -f - <<<"$text"
fi
