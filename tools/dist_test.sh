#!/usr/bin/env bash
# Usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT. Without CUDA the processes talk gloo.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [options of tools/test.py]" >&2
    exit 2
fi
config=$1 checkpoint=$2 processes=$3
shift 3
python=${PYTHON:-python}

options=()
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    options=(env_cfg.dist_cfg.backend=gloo)
    # argparse keeps the last --cfg-options only: ours has to join the caller's.
    arguments=() merged=0
    for argument in "$@"; do
        arguments+=("$argument")
        if [ "$argument" = --cfg-options ]; then
            arguments+=("${options[@]}")
            merged=1
        fi
    done
    [ "$merged" = 1 ] || arguments+=(--cfg-options "${options[@]}")
    set -- "${arguments[@]}"
fi

exec "$python" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
