#!/usr/bin/env bash
# Sets up .venv (see setup_env.sh) and runs the tests; arguments go to pytest.
#
#   EXPLAIN3D_TEST_JOBS    processes that share the test files (default: the cores, at most 4)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
# Small tensors: two threads of torch on two cores cost more than they bring.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
cores="$(getconf _NPROCESSORS_ONLN)"  # nproc would answer OMP_NUM_THREADS.
jobs="${EXPLAIN3D_TEST_JOBS:-$(( cores < 4 ? cores : 4 ))}"
# A file's tests stay together: they share what is costly to make.
echo "[tests] python -m pytest -n $jobs --dist loadfile $*"
exec .venv/bin/python -m pytest -n "$jobs" --dist loadfile "$@"
