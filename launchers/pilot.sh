#!/usr/bin/env bash
# Starts one worker for each GPU of this Slurm job, or of this machine, and without GPUs one for each task of the job.
# It ends when all of them have: when no work is left, or their time is nearly over. SIGTERM is passed on to them. Start
# it with `exec` at the end of a job's script: Slurm's signal goes to the script's shell. What a worker says is in
# worker*/log; the end of it, where one failed, is told here, which is the job's output.
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
        >>"worker$i/log" 2>&1 &
    pids+=($!)
done

failed=0
for ((i = 0; i < workers; i++)); do
    # A signal ends `wait`, not the worker; asked again, `wait` still knows how the worker ended.
    while kill -0 "${pids[i]}" 2>/dev/null; do wait "${pids[i]}"; done
    wait "${pids[i]}" && continue
    failed=1
    printf 'worker%d failed; the end of %s:\n' "$i" "$PWD/worker$i/log" >&2
    tail -n 5 "worker$i/log" >&2
done
exit $failed
