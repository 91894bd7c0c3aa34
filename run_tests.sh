#!/usr/bin/env bash
# Installs what is missing, then runs the linters and the tests:  ./run_tests.sh [--quick] [pytest's flags]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
"$PYTHON" -c 'import importlinter, mypy, pytest_cov, ruff, scipy, sentencepiece, statsmodels, tiktoken, xdist' 2>/dev/null ||
    "$PYTHON" -m pip install -qq --disable-pip-version-check -c requirements.txt -e '.[nf4,web,dev]'
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
