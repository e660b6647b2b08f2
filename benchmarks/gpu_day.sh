#!/usr/bin/env bash
# Everything that only a GPU can tell, in one run: at most ten minutes of its time, JSON in one folder.
#
#     benchmarks/gpu_day.sh [--out FOLDER] [--budget SECONDS] [--rehearse]
#
# Run it in an environment where kdops is built with CUDA for the GPU (make build). Every stage has a
# limit of its own, a share of the budget; one that fails or runs out of time does not stop the next.
# --rehearse runs the same stages with tiny selections on the emulated device (make rehearse), so that
# no minute of a GPU goes into a wrong option. Exit status: 0 all well, 1 a stage failed, 3 time ran out.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python} out=gpu-day budget=${KDOPS_GPU_BUDGET:-600} rehearse=
while (($#)); do
  case $1 in
    --out) out=$2 && shift ;;
    --budget) budget=$2 && shift ;;
    --rehearse) rehearse=1 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 2 ;;
  esac
  shift
done
mkdir -p "$out"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
stages=()

# stage NAME SECONDS COMMAND...: SECONDS of a budget of 600; SIGTERM first, a test run then still writes what it has
stage() {
  local name=$1 limit=$(($2 * budget / 600)) left=$((budget - SECONDS)) begun=$SECONDS status
  shift 2
  limit=$((limit < left ? limit : left))
  printf '\n=== %s (at most %d s)\n' "$name" "$limit"
  if ((limit < 1)); then
    stages+=("$name=124:0:0")
    return
  fi
  timeout --kill-after=10 "$limit" "$@" 2>&1 | tail -n 15
  status=${PIPESTATUS[0]}
  stages+=("$name=$status:$((SECONDS - begun)):$limit")
}
skip() {
  printf '\n=== %s: skipped, %s\n' "$1" "$2"
  stages+=("$1=skipped:$2")
}
tests=("$python" -m pytest -q --tb=short -p no:cacheprovider -p benchmarks.day.outcomes)

if [[ $rehearse ]]; then
  rehearsed=(--rehearse) emulated=(-p tests.emulator.plugin -p benchmarks.day.rehearsal)
  gpu_tests="test_equal_maps and not 300" contract="test_value and gram and float32"
  timed="cuda and svd and 16x16 and float32 and forward and (linalg or kdops) and not gesv and not reference"
else
  rehearsed=() emulated=()
  gpu_tests="" contract="" timed="cuda and not gesvd"
fi
# all but those for a CPU and those that take long
mapfile -t benches < <(printf '%s\n' benchmarks/bench_*.py | grep -vE 'iteration|scaling|svd_large|tokens')

stage machine 40 "$python" -m benchmarks.day.machine "${rehearsed[@]}" --json "$out/machine.json"
stage build 40 "$python" -m benchmarks.day.build "${rehearsed[@]}" --json "$out/build.json"
stage gpu-tests 90 "${tests[@]}" "${emulated[@]}" tests/ops -m gpu -k "$gpu_tests" --outcomes "$out/gpu-tests.json"
stage contract 140 "${tests[@]}" "${emulated[@]}" tests/test_contract.py --device cuda -k "$contract" \
  --outcomes "$out/contract.json"
stage benchmarks 160 "${tests[@]}" "${emulated[@]}" "${benches[@]}" --benchmark-only --quick -k "$timed" \
  --benchmark-columns=median,iqr,rounds --benchmark-json "$out/benchmarks.json" --outcomes "$out/benchmarks-outcomes.json"

# Few cases: the sanitizer slows a kernel down a hundred times. torch's cache of memory would hide what is out of bounds.
sanitizer=$(command -v compute-sanitizer || true)
for tool in memcheck racecheck; do
  if [[ $rehearse ]]; then
    skip "$tool" "the emulated device has checks of its own and no compute-sanitizer"
  elif [[ -z $sanitizer ]]; then
    skip "$tool" "no compute-sanitizer here"
  else
    stage "$tool" 30 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      "${tests[@]}" tests/test_contract.py --device cuda --outcomes "$out/$tool.json" \
      -k "test_value and float32 and (gram or batched_svd or svd_rbf or rkd)"
  fi
done
stage calibration 60 "$python" -m benchmarks.day.calibrate "${rehearsed[@]}" --json "$out/calibration.json"
[[ $rehearse ]] && skip graphs "the emulated device has no CUDA graphs: passes were launched call by call" &&
  skip events "the emulated device has no events: the host's clock stood in, no time of this run means anything"

printf '\n'
"$python" -m benchmarks.day.summary "$out" "${rehearsed[@]}" "${stages[@]}"
