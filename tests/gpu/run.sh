#!/usr/bin/env bash
# What is to be shown on a GPU, in parts: tests/gpu/run.sh [PART ...]; see tests/gpu/parts.py.
# OUT: folder of the JSON files. SIZE: gpu, or smoke to try the script on a CPU. BUDGET: seconds that a call may take.
# STATE: folder of trainings and of parts already done; the same call again goes on from there.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"
export SIZE="${SIZE:-gpu}" BUDGET="${BUDGET:-570}" STATE="${STATE:-$PWD/runs/gpu}"
export OUT="${OUT:-$STATE/out}"
exec "${PYTHON:-python3}" tests/gpu/parts.py "$@"
