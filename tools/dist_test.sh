#!/usr/bin/env bash
# Usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# CONFIG is a file of MMDetection3D (.py) or of OpenPCDet (.yaml). The environment that it heeds is described in launch.sh.
set -euo pipefail
. "$(dirname "$0")/launch.sh"

if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [options of tools/test.py]" >&2
    exit 2
fi
launch "$3" test.py "$1" "$2" --launcher pytorch "${@:4}"
