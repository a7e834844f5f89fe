# shellcheck shell=bash
# Sourced by the end-to-end tests: TEST.sh PLUMB MPIRUN.  Gives $plumb, $model, an empty $work that is removed at the end, and the functions below.
set -euo pipefail
plumb=${1:?usage: $0 PLUMB MPIRUN}
mpirun=${2:?usage: $0 PLUMB MPIRUN}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
model=$root/tests/data/models/stories260K
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive

fail() {
    echo "FAILED: $*" >&2
    if [ -f "$work/log" ]; then sed 's/^/    /' "$work/log" >&2; fi
    exit 1
}

# ranks N COMMAND ARGUMENT ...: plumb on N ranks. $code is its exit code, $work/log all that it said.
ranks() {
    local n=$1
    shift
    code=0
    "$mpirun" -n "$n" --oversubscribe --bind-to none "$plumb" "$@" >"$work/log" 2>&1 || code=$?
}
must() { # the same, and it must succeed
    ranks "$@"
    [ "$code" -eq 0 ] || fail "exit code $code: plumb ${*:2}"
}
has() { grep -qE -- "$2" "$1" || fail "nothing matches '$2' in $1"; }
# The values of a metric in metrics.jsonl, one a line; of an evaluation on standard output.
metric() { sed -nE "s|.*\"$2\": ([-0-9.eE+]+)[,}].*|\1|p" "$1"; }
printed() { awk -v name="$2" '$1 == name { print $2 }' "$1"; }
# holds 'A < B': a comparison of numbers
holds() { awk "BEGIN { exit !($1) }" || fail "$2: $1"; }
# appears FILE PATTERN: waits for a line that matches, a minute at most
appears() {
    local i
    for ((i = 0; i < 6000; i++)); do
        if grep -qsE -- "$2" "$1"; then return; fi
        sleep 0.01
    done
}
# What runs under a process, the first or the last: mpirun under a shell, a rank under mpirun; nothing when it has ended.
first_child() { ps -o pid= --ppid "${1:-0}" | head -n 1 | tr -d ' ' || true; }
last_child() { ps -o pid= --ppid "${1:-0}" | tail -n 1 | tr -d ' ' || true; }
# send SIGNAL SHELL: to the mpirun of a run that was started in the background as SHELL; waits for its end
send() {
    local launcher
    launcher=$(first_child "$2")
    [ -n "$launcher" ] || fail "the run ended before it could be stopped"
    kill -"$1" "$launcher"
    wait "$2" || true # the shell's own code; the run's is known from what it said
}
same() { cmp "$1" "$2" >&2 || fail "$1 and $2 differ"; }

pairs=configs/quickstart/data/instruction-pairs.json
