#!/usr/bin/env bash
# Sets up .venv (see setup_env.sh), simulates a few frames of the mini world, explains what the
# shipped SECOND and CenterPoint detect in them, and prints the tables and where the pictures are.
#
#   EXPLAIN3D_DEMO_FRAMES  number of validation frames (default 10, at most 50)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh

frames="${EXPLAIN3D_DEMO_FRAMES:-10}"
# The first validation frame of the mini world: the shipped weights have not seen it.
first=200
data="data/mini_kitti_demo_$frames"
mkdir -p data outputs
python=.venv/bin/python
export PYTHONWARNINGS=ignore EXPLAIN3D_MINI_DATA="$data"

say() { printf '\n[demo %s] %s\n' "$(date +%H:%M:%S)" "$*"; }

say "1/3 simulating $frames frames into $data"
"$python" tools/make_mini_dataset.py kitti --out "$data" --first-frame "$first" \
    --frames "$frames" --val-frames "$frames" --workers "$(nproc)" --mmdet3d-infos \
    >"$data.log" 2>&1 || { tail -n 20 "$data.log" >&2; exit 1; }

step=2
for model in second centerpoint; do
    out="outputs/demo/ffam_$model"
    say "$step/3 FFAM on $model"
    mkdir -p "$out"
    "$python" tools/test.py "configs/ffam/ffam_${model}_miniworld.py" \
        --work-dir "$out/run" --out-dir "$out" --cfg-options "custom_hooks.0.targets=all,score" \
        >"$out/run.log" 2>&1 \
        || { tail -n 25 "$out/run.log" >&2; exit 1; }
    # Recall and precision of the detector on these frames, and what was explained.
    grep -E '^[A-Z][a-z]+_3D@.*: recall |Explained:' "$out/run.log" | sed 's/.*INFO - //'
    "$python" tools/show_results.py "$out"
    step=$((step + 1))
done
say "done. Results: outputs/demo; read one with explain3d.load('outputs/demo/ffam_second/000200.npz')."
