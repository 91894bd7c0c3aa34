# Sourced by the scripts of the repository's root: leaves $PYTHON, an interpreter with everything installed.
# Uses the active environment if it has the packages; otherwise makes .venv and installs LaViC into it, at the versions
# of requirements.txt. Scripts that need more set EXTRAS first.

EXTRAS=${EXTRAS:-nf4,web}

lavic_ready() { "$1" -c 'import aiohttp, bm25s, jinja2, jsonargparse, lightning, peft, pyarrow, simplejpeg, torchvision, transformers' >/dev/null 2>&1; }

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && lavic_ready python; then
    PYTHON=python
else
    PYTHON=.venv/bin/python
    stamp=.venv/.installed
    wanted=$(cat requirements.txt pyproject.toml)
    if ! { [ -x "$PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; }; then
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
            echo "error: LaViC needs Python 3.11 or newer as python3, and 'python3 --version' says" \
                "$(python3 --version 2>&1 || true); install it or activate an environment that has it." >&2
            exit 2
        }
        echo "Installing LaViC and its packages into .venv, once (about 6 GB with CUDA's libraries) ..." >&2
        python3 -m venv .venv || {
            echo "error: python3 cannot make a virtual environment; install it (Debian: apt install python3-venv)." >&2
            exit 2
        }
        "$PYTHON" -m pip install -qq --disable-pip-version-check -c requirements.txt -e ".[$EXTRAS]" || exit 2
        printf '%s' "$wanted" >"$stamp"
    fi
fi
