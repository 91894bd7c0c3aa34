# Sourced by the scripts of the repository's root: leaves $PYTHON, an interpreter with everything installed.
# Uses the active environment if it has the packages; otherwise makes .venv and installs requirements.txt into it.

lavic_ready() { "$1" -c 'import aiohttp, bm25s, ijson, jsonargparse, lightning, peft, pyarrow, simplejpeg, torchvision, transformers' >/dev/null 2>&1; }

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && lavic_ready python; then
    PYTHON=python
else
    PYTHON=.venv/bin/python
    stamp=.venv/.installed
    if ! { [ -x "$PYTHON" ] && cmp -s requirements.txt "$stamp"; }; then
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
            echo "error: LaViC needs Python 3.11 or newer as python3, and 'python3 --version' says" \
                "$(python3 --version 2>&1 || true); install it or activate an environment that has it." >&2
            exit 2
        }
        echo "Installing the packages of requirements.txt into .venv, once (about 6 GB with CUDA's libraries) ..."
        python3 -m venv .venv || {
            echo "error: python3 cannot make a virtual environment; install it (Debian: apt install python3-venv)." >&2
            exit 2
        }
        "$PYTHON" -m pip install -qq --disable-pip-version-check -r requirements.txt || exit 2
        cp requirements.txt "$stamp"
    fi
fi
