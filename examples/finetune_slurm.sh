#!/usr/bin/env bash
# Fine-tuning on all machines of a Slurm job: sbatch -N 2 finetune_slurm.sh
#SBATCH --job-name=finetune
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
set -euo pipefail

# Slurm runs this script once, on the first machine; srun then runs it on each, with an index.
if [ -z "${SLURM_PROCID:-}" ] || [ "${1:-}" != worker ]; then
    tries=0
    until srun --kill-on-bad-exit=0 --wait=0 bash "$0" worker; do
        tries=$((tries + 1)) # a worker was lost: all start again, and go on
        [ "$tries" -lt 10 ] || exit 1
        sleep 10
    done
    exit 0
fi

port=${PORT:-2222}
workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$port\"/" | paste -sd, -)
export TF_CONFIG="{\"cluster\": {\"worker\": [$workers]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"

# A folder that all machines see, with the models and the images.
cd "${FOLDER:-$SLURM_SUBMIT_DIR}"
exec dsconvert finetune small.keras --teacher model.h5 --data train.npz -o tuned.keras \
    --strategy multiworker --batch-size 64 --resume --overwrite
