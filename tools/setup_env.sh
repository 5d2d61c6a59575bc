#!/usr/bin/env bash
# Creates .venv and installs explain3d with everything its demo and tests need. Sourced by demo.sh
# and run_tests.sh, or run alone. Done again, it returns at once.
#
#   PYTHON                 interpreter to use (default: the newest supported one on this machine)
#   EXPLAIN3D_TORCH        torch requirement (default torch==2.13.0; with a GPU torch==2.8.0, whose
#                          build is for CUDA 12, as spconv-cu120 is)
#   EXPLAIN3D_GPU          0 or 1: which requirement set (default: 1 if nvidia-smi answers)
#   MAX_JOBS               parallel compilers for mmcv (default: all cores)
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
SUPPORTED="3.11 3.12 3.10"
MMCV_VERSION="2.1.0"
LOG_DIR="$VENV/setup-logs"

say() { printf '[setup %s] %s\n' "$(date +%H:%M:%S)" "$*"; }
fail() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

supported() {  # is $1 an interpreter of a supported version that can make virtual environments?
    "$1" - "$SUPPORTED" <<'PY' 2>/dev/null
import sys
import venv, ensurepip  # noqa: E401,F401
sys.exit('%d.%d' % sys.version_info[:2] not in sys.argv[1].split())
PY
}

find_python() {
    local candidate version
    if [ -n "${PYTHON:-}" ]; then
        supported "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of version $SUPPORTED with venv and pip: set PYTHON to one that is."
        printf '%s\n' "$PYTHON"; return
    fi
    for version in $SUPPORTED; do
        for candidate in "python$version" "$HOME/.pyenv/versions/$version."*/bin/python; do
            if command -v "$candidate" >/dev/null 2>&1 && supported "$candidate"; then
                printf '%s\n' "$candidate"; return
            fi
        done
    done
    for candidate in python3 python; do
        if command -v "$candidate" >/dev/null 2>&1 && supported "$candidate"; then
            printf '%s\n' "$candidate"; return
        fi
    done
    fail "no supported Python found. Supported: $SUPPORTED, with venv and pip. Install one of them or set PYTHON=/path/to/python."
}

quiet() {  # run a command, its output in a log; show the log's end if it fails
    local name="$1"; shift
    if ! "$@" >"$LOG_DIR/$name.log" 2>&1; then
        tail -n 25 "$LOG_DIR/$name.log" >&2
        fail "$name failed; the whole log is $LOG_DIR/$name.log"
    fi
}

pip_install() { quiet "$1" "$VENV/bin/python" -m pip install --disable-pip-version-check "${@:2}"; }

mmcv_works() { "$VENV/bin/python" -W ignore -c 'import torch, mmcv.ops' >/dev/null 2>&1; }

mmcv_progress() {  # a line every 15 s while process $1 lives: compiled files of all
    local pid="$1" log="$2" started=$SECONDS step
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if [ $(( (SECONDS - started) % 15 )) -eq 0 ]; then
            step="$(grep -o '^ *\[[0-9]*/[0-9]*\]' "$log" 2>/dev/null | tail -n 1 | tr -d ' ' || true)"
            say "  mmcv: ${step:-preparing} after $((SECONDS - started)) s"
        fi
    done
}

build_mmcv() {  # $@: further pip options
    local log="$LOG_DIR/mmcv.log" pid
    # -O1 -g0 halves the compiler's work; none of mmcv's CPU operators is a bottleneck here.
    ( export CFLAGS="${CFLAGS:--O1 -g0}" MMCV_WITH_OPS=1 FORCE_CUDA="$1" MAX_JOBS="${MAX_JOBS:-$(nproc)}"
      # shellcheck disable=SC2030
      export PATH="$VENV/bin:$PATH"  # ninja
      exec "$VENV/bin/python" -m pip install --disable-pip-version-check --no-build-isolation \
          --no-deps -v "${@:2}" "mmcv==$MMCV_VERSION" >"$log" 2>&1 ) &
    pid=$!
    mmcv_progress "$pid" "$log"
    wait "$pid" || { tail -n 25 "$log" >&2; fail "mmcv's build failed; a C++ compiler and the Python headers are needed. Log: $log"; }
}

install_mmcv() {
    mmcv_works && return
    if "$VENV/bin/python" -m pip install --disable-pip-version-check --no-deps --only-binary :all: \
        "mmcv==$MMCV_VERSION" >"$LOG_DIR/mmcv-wheel.log" 2>&1 && mmcv_works; then
        say "mmcv: a prebuilt wheel fits."
        return
    fi
    say "mmcv: no prebuilt wheel fits; building from source (once: pip keeps the result), about 6 minutes on two cores."
    build_mmcv "$1"
    mmcv_works && return
    # pip's cache is keyed by version alone: its wheel may belong to another torch.
    say "mmcv: the cached build does not fit this torch; building anew."
    build_mmcv "$1" --force-reinstall --no-cache-dir
    mmcv_works || fail "mmcv was built but does not import: see $LOG_DIR/mmcv.log"
}

torch_requirement() {  # for the requirement set $1
    if [ "$1" = gpu ]; then printf '%s\n' "${EXPLAIN3D_TORCH:-torch==2.8.0}"
    else printf '%s\n' "${EXPLAIN3D_TORCH:-torch==2.13.0}"; fi
}

torch_fits_gpu() {
    local found
    found="$("$VENV/bin/python" -W ignore -c 'import torch; print(torch.version.cuda)')"
    case "$found" in 12.*) return ;; esac
    fail "torch is a build for CUDA $found: expected one for CUDA 12, as requirements/gpu.txt has spconv-cu120. Set EXPLAIN3D_TORCH to such a requirement and delete $VENV, or set EXPLAIN3D_GPU=0."
}

gpu_present() {
    case "${EXPLAIN3D_GPU:-}" in 0) return 1 ;; 1) return 0 ;; esac
    command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1
}

stamp() {  # changes when what is to be installed changes
    cat "$ROOT"/requirements/*.txt "$ROOT/setup.py" "$ROOT/tools/setup_env.sh" | cksum
    printf '%s %s\n' "${EXPLAIN3D_TORCH:-}" "$1"
}

setup_env() {
    local set_name=cpu cuda=0 python
    if gpu_present; then
        set_name=gpu cuda=1
        SUPPORTED="3.11 3.10"  # spconv-cu120 has no wheels for later ones.
    fi
    if [ "$(cat "$VENV/.complete" 2>/dev/null)" = "$(stamp "$set_name")" ]; then
        say "$VENV is up to date."
        return
    fi
    if [ ! -x "$VENV/bin/python" ]; then
        python="$(find_python)"
        say "creating $VENV with $("$python" --version 2>&1) (supported: $SUPPORTED)"
        "$python" -m venv "$VENV"
    fi
    rm -f "$VENV/.complete"
    mkdir -p "$LOG_DIR"
    say "1/5 build tools"
    # setuptools 82 has no pkg_resources, which mmcv's build and parts of the stack import; torch
    # asks for a newer one than a new environment has.
    pip_install build-tools 'pip>=23' 'setuptools>=77,<82' wheel ninja==1.13.2 numpy==1.26.4
    say "2/5 torch ($(torch_requirement "$set_name"))"
    pip_install torch "$(torch_requirement "$set_name")" 'setuptools<82'
    if [ "$set_name" = gpu ]; then torch_fits_gpu; fi
    say "3/5 host toolboxes and tools, the $set_name set"
    pip_install requirements --no-deps --no-build-isolation -r "$ROOT/requirements/$set_name.txt" -r "$ROOT/requirements/dev.txt"
    say "4/5 mmcv"
    install_mmcv "$cuda"
    say "5/5 explain3d, editable"
    pip_install explain3d --no-deps --no-build-isolation -e "$ROOT"
    quiet import-check "$VENV/bin/python" -W ignore -c 'import mmdet3d.apis, mmdet3d.evaluation, mmdet3d.datasets, sklearn, spconv.pytorch, explain3d'
    stamp "$set_name" >"$VENV/.complete"
    say "done: $VENV"
}

setup_env
