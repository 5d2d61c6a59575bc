#!/usr/bin/env bash
# Sets up .venv (see setup_env.sh), simulates a few frames of the mini world, explains what the
# shipped SECOND and CenterPoint detect in them, decomposes what the shipped SimpleBEV and the shipped
# fusion detector predict by sensor, and prints the tables and where the pictures are.
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
scene="data/mini_nuscenes_demo_$frames"
cores="$(getconf _NPROCESSORS_ONLN)"  # nproc would answer OMP_NUM_THREADS.
# Small tensors: more threads of torch cost more than they bring, far more on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export PYTHONWARNINGS=ignore EXPLAIN3D_MINI_DATA="$data" EXPLAIN3D_MINI_NUSCENES="$scene"

say() { printf '\n[demo %s] %s\n' "$(date +%H:%M:%S)" "$*"; }

logged() {  # LOG COMMAND...: the log's end if it fails
    local log="$1"; shift
    mkdir -p "$(dirname "$log")"
    "$@" >"$log" 2>&1 || { tail -n 25 "$log" >&2; exit 1; }
}

say "1/6 simulating $frames frames into $data"
logged "$data.log" "$python" tools/make_mini_dataset.py kitti --out "$data" \
    --first-frame "$first" --frames "$frames" --val-frames "$frames" --workers "$cores" \
    --mmdet3d-infos

step=2
for model in second centerpoint; do
    out="outputs/demo/ffam_$model"
    say "$step/6 FFAM on $model"
    logged "$out/run.log" "$python" tools/test.py "configs/ffam/ffam_${model}_miniworld.py" \
        --work-dir "$out/run" --out-dir "$out" --cfg-options "custom_hooks.0.targets=all,score"
    # Recall and precision of the detector on these frames, and what was explained.
    grep -E '^[A-Z][a-z]+_3D@.*: recall |Explained:' "$out/run.log" | sed 's/.*INFO - //'
    "$python" tools/show_results.py "$out"
    step=$((step + 1))
done

say "4/6 simulating a drive of $frames keyframes with cameras, radars and a LiDAR into $scene"
logged "$scene.log" "$python" tools/make_mini_dataset.py nuscenes --out "$scene" \
    --scenes-train 0 --scenes-val 1 --scenes-test 0 --keyframes "$frames" --workers "$cores" \
    --mmdet3d-infos
logged "$scene.log" "$python" tools/add_bev_infos.py "$scene" --infos nuscenes_infos_val.pkl

out="outputs/demo/lmd_simplebev"
say "5/6 LMD on SimpleBEV: camera, radar, bias"
logged "$out/run.log" "$python" tools/test.py \
    configs/lmd/lmd_simplebev_radar-camera_mini-nuscenes.py --work-dir "$out/run" --out-dir "$out"
grep -E '^IoU: |Decomposed:' "$out/run.log" | sed 's/.*INFO - //'
"$python" tools/show_results.py "$out"
out="outputs/demo/sensors"
say "6/6 Which sensor made each box of the small BEVFusion-style detector?"
logged "$out/run.log" "$python" tools/sensor_report.py \
    configs/fusion/lmd_bevfusion_small_mini-nuscenes.py --pictures \
    --work-dir "$out/run" --out-dir "$out"
grep '^- ' "$out/report.md"
echo "Report: $out/report.md, $out/report.png; pictures: $out/frames/pictures"
say "done. Results: outputs/demo; read one with explain3d.load('outputs/demo/ffam_second/000200.npz')."
