#!/usr/bin/env bash
# Installs what is missing, then runs the linters and the tests:  ./run_tests.sh [--quick] [pytest's flags]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
"$PYTHON" -c 'import mypy, pytest, ruff' 2>/dev/null ||
    "$PYTHON" -m pip install -qq --disable-pip-version-check -r requirements-dev.txt
if [ "${1:-}" = "--quick" ]; then
    shift
    set -- -m "not slow" "$@"
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest "$@"
