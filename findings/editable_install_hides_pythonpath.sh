#!/usr/bin/env bash
# Two builders of editable installs give opposite answers to PYTHONPATH. setuptools appends its finder to
# sys.meta_path, so a second checkout named in PYTHONPATH wins, as it does over any installed package.
# scikit-build-core inserts its finder before Python's own: the second checkout is silently ignored, and tests
# run in it test the first one.
#
# Seen with setuptools 84.2.1 and scikit-build-core 1.1.2: "by setuptools: second", "by scikit-build-core: first".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check setuptools==84.2.1 scikit-build-core==1.1.2 cmake ninja 2> /dev/null

checkout() { # folder, name, backend
    mkdir -p "$1/$2"
    printf 'where = "%s"\n' "${1%%-*}" > "$1/$2/__init__.py"
    printf '[build-system]\nrequires = []\nbuild-backend = "%s"\n[project]\nname = "%s"\nversion = "1"\n' "$3" "$2" \
        > "$1/pyproject.toml"
    [ "$3" = setuptools.build_meta ] && printf '[tool.setuptools]\npackages = ["%s"]\n' "$2" >> "$1/pyproject.toml"
    printf 'cmake_minimum_required(VERSION 3.20)\nproject(%s LANGUAGES NONE)\n' "$2" > "$1/CMakeLists.txt"
}
for copy in first second; do
    checkout $copy-a plain setuptools.build_meta
    checkout $copy-b built scikit_build_core.build
done
venv/bin/pip install --quiet --disable-pip-version-check --no-build-isolation -e first-a -e first-b
seen=$(PYTHONPATH=$place/second-a:$place/second-b venv/bin/python -c \
    'import plain, built; print(f"by setuptools: {plain.where}\nby scikit-build-core: {built.where}")')
echo "$seen"
[ "$seen" = $'by setuptools: second\nby scikit-build-core: first' ]
