#!/usr/bin/env bash
# Several processes on this machine: one per GPU, or on simulated CPU devices to rehearse a cluster.
#
#   RANN_CONFIG=configs/quickstart.py RANN_WORKDIR=runs/local RANN_PROCESSES=2 RANN_CPU_DEVICES=2 bash launch/local.sh
#
#   RANN_PROCESSES    number of processes; without RANN_CPU_DEVICES process K uses GPU K
#   RANN_CPU_DEVICES  simulated CPU devices per process; if unset, the processes use GPUs
#   RANN_PORT         a free TCP port (default 29500)
#
# SIGTERM and Ctrl-C are forwarded to all processes, which save and exit. The exit code is the first nonzero one in
# the order of the processes. A second Ctrl-C kills them (exit code 130).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/contract.sh
source launch/contract.sh
required RANN_PROCESSES

pids=()
interrupts=0
# shellcheck disable=SC2329 # called by the traps
forward() { kill "-$1" "${pids[@]}" 2>/dev/null || true; }
# The processes are background jobs, which ignore a terminal's Ctrl-C, and JAX hears of SIGTERM only once.
# shellcheck disable=SC2329
interrupt() {
  interrupts=$((interrupts + 1))
  if [ "$interrupts" -eq 1 ]; then
    echo "stopping as soon as possible; press Ctrl-C again to interrupt at once" >&2
    forward TERM
  else
    echo "interrupted: the processes are killed" >&2
    forward KILL
  fi
}
trap 'forward TERM' TERM
trap interrupt INT

for ((index = 0; index < RANN_PROCESSES; index++)); do
  devices=("--jax_cuda_visible_devices=$index")
  if [ -n "${RANN_CPU_DEVICES:-}" ]; then
    devices=(--jax_platforms=cpu "--jax_num_cpu_devices=$RANN_CPU_DEVICES")
  fi
  place=("--coordinator=localhost:${RANN_PORT:-29500}" "--num_processes=$RANN_PROCESSES" "--process_id=$index")
  if $DRY_RUN; then
    run "${TRAIN[@]}" "${devices[@]}" "${place[@]}"
  else
    "${TRAIN[@]}" "${devices[@]}" "${place[@]}" &
    pids+=($!)
  fi
done

status=0
for pid in "${pids[@]}"; do
  code=0
  wait "$pid" || code=$?
  while kill -0 "$pid" 2>/dev/null; do # a signal interrupted the wait; the process still runs
    code=0
    wait "$pid" || code=$?
  done
  if [ "$status" -eq 0 ]; then status=$code; fi
done
if [ "$interrupts" -gt 1 ]; then status=130; fi
exit "$status"
