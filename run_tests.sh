#!/usr/bin/env bash
# Installs what is missing, then runs the linters and the tests:  ./run_tests.sh [--quick] [pytest's flags]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
needed="deepspeed importlinter mypy pytest_cov ruff scipy sentencepiece statsmodels tiktoken wandb xdist"
"$PYTHON" -c "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, '$needed'.split())))" ||
    "$PYTHON" -m pip install -qq --disable-pip-version-check -c requirements.txt -e '.[nf4,web,wandb,deepspeed,dev]'
if [ "${1:-}" = "--quick" ]; then
    shift
    set -- -m "not slow" "$@"
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
if [ -n "${CI:-}" ]; then # coverage costs time that only CI has
    set -- --cov=lavic --cov=crawl --cov-report=term:skip-covered "$@"
fi
exec "$PYTHON" -m pytest -n auto --dist loadfile "$@"
