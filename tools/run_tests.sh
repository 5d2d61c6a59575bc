#!/usr/bin/env bash
# Sets up .venv (see setup_env.sh) and runs the tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
# Small tensors: two threads of torch on two cores cost more than they bring.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
echo "[tests] python -m pytest $*"
exec .venv/bin/python -m pytest "$@"
