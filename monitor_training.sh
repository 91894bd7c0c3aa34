#!/usr/bin/env bash
# Follows the newest training run; --summary, --loss, --errors and --gpu print once. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
exec "$python" -m lavic monitor "$@"
