#!/usr/bin/env bash
# Make a virtual environment if there is none, and install into it:
#   bash .ci/venv.sh FOLDER PIP-INSTALL-ARGUMENT...
# The Python to make it with is $PYTHON, else python3.
set -euo pipefail
folder=$1; shift
python=${PYTHON:-python3}

if ! "$folder/bin/python" -c '' 2>/dev/null; then
    if ! command -v "$python" >/dev/null; then
        echo "There is no '$python' here. snakeid needs Python 3.11 or newer: install one, or name it: make PYTHON=/path/to/python3.12 setup" >&2
        exit 1
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "snakeid needs Python 3.11 or newer, and '$python' is $("$python" --version 2>&1). Name a newer one: make PYTHON=python3.12 setup" >&2
        exit 1
    fi
    # --clear: what lies there does not run, perhaps since an upgrade took its Python away
    if ! "$python" -m venv --clear "$folder"; then
        echo "'$python -m venv' failed. On Debian and Ubuntu the venv module is a package of its own: python3-venv" >&2
        exit 1
    fi
fi

# uv does the same as pip in a fraction of the time, but reads none of pip's settings: hand on those from the
# environment. Those in pip's own files stay unread; pip takes over below where uv finds nothing without them
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS// /,}}"
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"
[ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"
[ -z "${PIP_NO_INDEX:-}" ] || set -- --no-index "$@"

export PIP_DISABLE_PIP_VERSION_CHECK=1
started=$SECONDS
tool=uv
if ! "$folder/bin/python" -m uv --version >/dev/null 2>&1 && ! "$folder/bin/python" -m pip install --quiet uv; then
    tool=pip
elif ! "$folder/bin/python" -m uv pip install --quiet --python "$folder/bin/python" "$@"; then
    tool=pip
fi
if [ "$tool" = pip ]; then
    echo "uv could not do it; trying again with pip, which takes a few minutes" >&2
    "$folder/bin/python" -m pip install --quiet "$@"
fi
echo "$folder is ready ($tool, $((SECONDS - started)) s)"
