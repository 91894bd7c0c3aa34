#!/usr/bin/env bash
# Stage 1 on one GPU, from configs/distill.yaml:  ./run_training.sh [flags]     (--help lists them)
# The whole thing on a laptop, in minutes:        ./run_training.sh --demo [--stage 2] [--task instruct|vqa]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
if [ "${1:-}" = "--demo" ]; then
    shift
    exec "$PYTHON" -m lavic demo "$@"
fi
exec "$PYTHON" -m lavic train "$@"
