# shellcheck shell=bash
# What every launcher takes, written once; each sources this file from the root of the repository.
#
#   bash launch/NAME.sh [--dry-run] [--config.key=value ...]
#
#   RANN_CONFIG     the experiment, configs/NAME.py[:presets]
#   RANN_WORKDIR    folder of the run; one that all processes see (a shared disk, or a mounted bucket)
#
# and what the head of the launcher names. They say where a run goes and end up as flags that a dry run shows;
# what is trained is in the config and in the arguments alone. No launcher reads or keeps a credential: the
# tools it calls (gcloud, kubectl, sky, srun) bring their own.
#
# The program's exit code where it was told to stop, and saved: the same command goes on. slurm.sbatch queues itself
# again after it; what restarts by itself (GKE, XPK, SkyPilot) does after any failure; elsewhere start it again.
# shellcheck disable=SC2034 # for those that source this
PREEMPTED=75

DRY_RUN=false
if [ "${1:-}" = "--dry-run" ]; then
  DRY_RUN=true
  shift
fi

# Stop with one line where a variable is missing.
required() {
  local name
  for name in "$@"; do
    if [ -z "${!name:-}" ]; then
      echo "error: $name is not set: launch/contract.sh and the head of the launcher say what it is" >&2
      exit 2
    fi
  done
}

# The words of a command, quoted for a shell.
quoted() {
  local words
  printf -v words '%q ' "$@"
  printf '%s' "${words% }"
}

# Do a command, or say it.
run() {
  if $DRY_RUN; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

required RANN_CONFIG RANN_WORKDIR
# shellcheck disable=SC2034
TRAIN=(python -m rann_jax.main --config "$RANN_CONFIG" --workdir "$RANN_WORKDIR" "$@")
