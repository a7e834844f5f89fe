#!/bin/bash
# Runs the tests.
#
#   tests/run.sh                       everything: installs what is missing, builds (preset ci: warnings are errors), runs ctest
#   tests/run.sh -L LABEL ...          arguments of ctest: -L unit | backend | golden | mpi | invariant | fault | fuzz | slurm | e2e, -R NAME, ...
#   tests/run.sh golden DIR [WORD ...] the golden tests on any directory laid out like tests/golden; one line for each case, then the counts.
#                                      WORDs go to the program: cpu or ref, then an instruction set
#   tests/run.sh sanitize [...]        the same as the first two in the preset asan-ubsan
#   tests/run.sh fuzz                  the fuzz targets for 20 seconds each with libFuzzer (clang)
#
# PLUMB_MODELS names a directory with SmolLM2-135M-Instruct.Q4_1.gguf for the tests that want a real model; default: models/ where it is there.
# The last line is 'N passed, N failed, N skipped'. Exit status: 0 nothing failed, 1 something did, 2 the tests could not be built or started.
set -euo pipefail
cd "$(dirname "$0")/.."
source=$PWD

could_not() { echo "run.sh: $*" >&2; exit 2; }

if [ -z "${PLUMB_MODELS:-}" ] && [ -f models/SmolLM2-135M-Instruct.Q4_1.gguf ]; then PLUMB_MODELS=$source/models; fi
export PLUMB_MODELS=${PLUMB_MODELS:-}
jobs=$(nproc)
if [ "$jobs" -gt 4 ]; then jobs=4; fi # several tests start four ranks each

build() { # folder, target, arguments of the configuration
    local folder=$1 target=$2
    shift 2
    cluster/install-deps.sh --tests >&2 || could_not "provide what is missing and start this again"
    if [ ! -f "$folder/build.ninja" ]; then cmake -B "$folder" "$@" >&2 || could_not "cmake failed"; fi
    cmake --build "$folder" --target "$target" >&2 || could_not "the build failed"
}

# The counts from what ctest writes for machines; a disabled test counts as skipped.
count() { # file
    awk 'function value(name,  text) { text = $0; if (!sub(".*[ \t]" name "=\"", "", text)) return 0; sub("\".*", "", text); return text + 0 }
         /<testsuite/ { inside = 1 }
         inside { tests += value("tests"); failed += value("failures"); skipped += value("skipped") + value("disabled") }
         inside && />/ { exit }
         END { printf "%d passed, %d failed, %d skipped\n", tests - failed - skipped, failed, skipped }' "$1"
}

run_ctest() { # folder, arguments of ctest
    local folder=$1 code=0
    shift
    rm -f "$folder/results.xml"
    ctest --test-dir "$folder" --output-on-failure --output-junit "$source/$folder/results.xml" -j "$jobs" "$@" || code=$?
    [ -s "$folder/results.xml" ] || could_not "ctest ran no tests"
    echo
    awk '/<testcase/ { name = $0; sub(/.* name="/, "", name); sub(/".*/, "", name) }
         /<skipped/ { reason = $0; sub(/.*message="/, "", reason); sub(/".*/, "", reason); printf "skipped: %s (%s)\n", name, reason }' "$folder/results.xml"
    count "$folder/results.xml"
    exit $((code != 0))
}

case ${1:-} in
-h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0" ;;
golden)
    shift
    [ $# -ge 1 ] || could_not "golden needs a directory"
    [ -d "$1" ] || could_not "golden: $1 is not a directory"
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    build build/ci golden --preset ci
    exec build/ci/tests/golden/golden "$@"
    ;;
sanitize)
    shift
    build build/asan-ubsan all --preset asan-ubsan
    export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}
    run_ctest build/asan-ubsan "$@"
    ;;
fuzz)
    build build/fuzz all -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Release -DPLUMB_FUZZ=ON
    run_ctest build/fuzz -L fuzz
    ;;
*)
    build build/ci all --preset ci
    run_ctest build/ci "$@"
    ;;
esac
