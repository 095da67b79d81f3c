# shellcheck shell=bash
# The interface that all launchers share. Each launcher sources this file from the root of the repository.
#
#   bash launch/NAME.sh [--dry-run] [--config.key=value ...]
#
#   RANN_CONFIG     the experiment, configs/NAME.py[:presets]
#   RANN_WORKDIR    the workdir, visible to all processes (a shared disk or a mounted bucket)
#
# The head of each launcher lists its other variables. These variables say where a run goes and end up as flags
# that a dry run shows; the config and the arguments alone decide what is trained. No launcher reads or keeps a
# credential: the tools it calls (gcloud, kubectl, sky, srun) bring their own.
#
# The program's exit code after it was told to stop and has saved; the same command resumes the run. slurm.sbatch
# requeues itself on this code; GKE, XPK and SkyPilot restart after any failure; elsewhere start it again by hand.
# shellcheck disable=SC2034 # used by the scripts that source this file
PREEMPTED=75

DRY_RUN=false
if [ "${1:-}" = "--dry-run" ]; then
  DRY_RUN=true
  shift
fi

# Exit with a one-line error if a variable is not set.
required() {
  local name
  for name in "$@"; do
    if [ -z "${!name:-}" ]; then
      echo "error: $name is not set: see the comments at the top of launch/contract.sh and of the launcher" >&2
      exit 2
    fi
  done
}

# Print the words of a command, quoted for a shell.
quoted() {
  local words
  printf -v words '%q ' "$@"
  printf '%s' "${words% }"
}

# Run a command, or print it in a dry run.
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
