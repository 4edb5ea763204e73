#!/usr/bin/env bash
# Starts one worker for each GPU of this Slurm job, or of this machine, and without GPUs one for each task of the job.
# It ends when all of them have: when no work is left, or their time is nearly over. SIGTERM is passed on to them.
#
#   pilot.sh FWORKER_FILE [options of `phononbench worker`]
set -uo pipefail

fworker=${1:?the FWorker file is missing}
shift

if [[ -z ${CUDA_VISIBLE_DEVICES+set} ]] && command -v nvidia-smi >/dev/null; then
    CUDA_VISIBLE_DEVICES=$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd, -)
fi
IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-}"
workers=${#gpus[@]}
if ((workers == 0)); then
    workers=${SLURM_NTASKS:-1}
fi
# Workers that each start a thread for every core of the node would stand in each other's way.
cores=${SLURM_CPUS_ON_NODE:-$(nproc)}
export OMP_NUM_THREADS=$((cores > workers ? cores / workers : 1))

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
for ((i = 0; i < workers; i++)); do
    mkdir -p "worker$i"
    # CUDA reads the variable once, so it has to be there before Python starts.
    CUDA_VISIBLE_DEVICES=${gpus[i]:-} phononbench worker --fworker "$fworker" --folder "worker$i" "$@" \
        >"worker$i/log" 2>&1 &
    pids+=($!)
done

failed=0
for pid in "${pids[@]}"; do
    # A signal ends `wait`, not the worker; asked again, `wait` still knows how the worker ended.
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
    wait "$pid" || failed=1
done
exit $failed
