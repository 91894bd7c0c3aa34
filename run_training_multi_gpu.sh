#!/usr/bin/env bash
# Stage 1 on all GPUs of the machine (DDP):        ./run_training_multi_gpu.sh [flags of run_training.sh]
# Without a GPU, two processes on the CPU (gloo):  ./run_training_multi_gpu.sh --accelerator cpu --devices 2
# Several machines: start it through torchrun or srun (scripts/slurm.sh); their variables are honoured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
if [ -n "${SLURM_NTASKS:-}" ] && [ "${SLURM_NTASKS}" -gt 1 ]; then # srun has started one process a GPU
    processes=(--trainer.devices "${SLURM_NTASKS_PER_NODE:-auto}" --trainer.num_nodes "${SLURM_NNODES:-1}")
elif [ -n "${LOCAL_WORLD_SIZE:-}" ]; then # torchrun has
    processes=(--trainer.devices "$LOCAL_WORLD_SIZE" --trainer.num_nodes "$((WORLD_SIZE / LOCAL_WORLD_SIZE))")
else
    processes=(--trainer.devices auto)
fi
exec "$PYTHON" -m lavic train --trainer.strategy ddp "${processes[@]}" "$@"
