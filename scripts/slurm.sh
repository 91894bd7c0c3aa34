#!/usr/bin/env bash
# Stage 1 on several machines under SLURM, to start from:  sbatch scripts/slurm.sh [flags of run_training.sh]
# Two minutes before its time is up SLURM warns the job; it saves, queues itself again and goes on from last.ckpt.
#SBATCH --job-name=lavic
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/slurm_%j.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this script is for sbatch}"
# One name of the run for all its processes, a new one each time the job is started.
LAVIC_RUN_ID="training_$(date +%Y%m%d_%H%M%S)"
export LAVIC_RUN_ID
# --kill-on-bad-exit: a process that fails ends the others, which would wait for it.
srun --kill-on-bad-exit=1 ./run_training_multi_gpu.sh --resume "$@"
