#!/bin/bash
# An evaluation on a Slurm cluster: one shard a task of an array, on nodes that need no network between them.
#
#   export RUN=$SCRATCH/runs/llama MODEL=hf/$SCRATCH/checkpoints/llama BANK=bank.json SHARDS=10
#   bash slurm-shards.sh begin               # on the login node: begins the run, and deals it out
#   sbatch --array=1-10 slurm-shards.sh      # a task that is cut (11) or killed goes on when it is submitted again
#   bash slurm-shards.sh merge               # when the array has ended, or before: what is owed stays owed
#
#SBATCH --job-name=redinstruct
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=redinstruct-%A_%a.log
set -euo pipefail

: "${RUN:?the folder of the run}" "${MODEL:?the model}" "${BANK:?the question bank}" "${SHARDS:=10}"
# One command for the run and all its shards: only --run differs.
ask=(redinstruct eval --model "$MODEL" --bank "$BANK" --judge "${JUDGE:-refusal}")
if [[ -n ${JUDGE_MODEL:-} ]]; then
    ask+=(--judge-model "$JUDGE_MODEL")
fi

case "${1:-ask}" in
begin)
    "${ask[@]}" --run "$RUN" --max-calls 0 || [[ $? -eq 11 ]] # 11: nothing is asked yet
    redinstruct shard "$RUN" --of "$SHARDS" --out "$RUN-shards"
    ;;
ask)
    # The store is a database in one file: it is asked on the node's own disk, and comes back however the task ends.
    work=$(mktemp -d)
    trap 'cp -r "$work/shard/." "$RUN-shards/$SLURM_ARRAY_TASK_ID/"; rm -r "$work"' EXIT
    cp -r "$RUN-shards/$SLURM_ARRAY_TASK_ID" "$work/shard"
    "${ask[@]}" --run "$work/shard"
    ;;
merge)
    redinstruct merge "$RUN" "$RUN-shards"/* --run "$RUN-merged"
    redinstruct report "$RUN-merged"
    ;;
*)
    echo "begin, merge, or nothing (a task of the array)" >&2
    exit 2
    ;;
esac
