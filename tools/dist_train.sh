#!/usr/bin/env bash
# Usage: tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# The environment that it heeds is described in launch.sh.
set -euo pipefail
. "$(dirname "$0")/launch.sh"

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [options of tools/train.py]" >&2
    exit 2
fi
launch "$2" train.py "$1" --launcher pytorch "${@:3}"
