#!/usr/bin/env bash
# run_slurm.sh SBATCH_FILE RUN_DIR_WORD FINAL_FILE PROGRAM [ARGUMENTS ...]
#
# A job's life under a real Slurm: submitted with the project's batch file, asked to leave by USR1 (what Slurm does before the time limit),
# requeued and resumed, then one rank killed with SIGKILL (the job must end, not hang, and not come back), then submitted again on another
# number of ranks and nodes, to its end. The result must be that of an uninterrupted run on one rank.
#
# In ARGUMENTS the word RUN_DIR_WORD stands for the run's folder; FINAL_FILE (relative to it) is compared. Exits 77 (skipped) with a reason
# where Slurm cannot be started. Environment: RUNNING_LINE, a pattern the log shows once a start, when the ranks are at work (default "begin at step").
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/slurm_cluster.sh"
reason=$(slurm_missing)
[ -z "$reason" ] || { echo "skipped: $reason"; exit 77; }
sbatch_file=$1 word=$2 final=$3
shift 3
export PLUMB=$1
shift
pattern=${RUNNING_LINE:-begin at step}
work=$(mktemp -d)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 PLUMB_WATCHDOG_SECONDS=10
trap 'slurm_stop; rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; tail -n 40 "$work"/*.log; tail -n 15 "$work"/slurm/log/slurmctld.log; exit 1; }
state_of() { scontrol show job "$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
wait_for() { local seconds=$1 i; shift; for i in $(seq 1 $((seconds * 5))); do "$@" && return 0; sleep 0.2; done; return 1; }
is_state() { [[ $(state_of "$1") =~ ^($2)$ ]]; }
seen() { local n; n=$(grep -c -- "$pattern" "$work/$1" 2>/dev/null); [ "${n:-0}" -ge "$2" ]; }
arguments=()
for a in "$@"; do arguments+=("${a//$word/$work/run}"); done
reference=()
for a in "$@"; do reference+=("${a//$word/$work/reference}"); done

"$PLUMB" "${reference[@]}" >"$work/reference.log" 2>&1 || fail "the uninterrupted run failed"
slurm_start "$work/slurm" 2 4 || fail "Slurm did not come up"
cd "$work" || exit 1

submit() { sbatch --parsable --chdir="$work" --output="$work/job.log" --time=10 "$@" "$sbatch_file" "${arguments[@]}"; }
job=$(submit --nodes=2 --ntasks-per-node=2) || fail "sbatch"
wait_for 30 seen job.log 1 || fail "the job did not start"
sleep 1
scancel --batch --signal=USR1 "$job"
wait_for 60 grep -q "back into the queue" "$work/job.log" || fail "no checkpoint and no requeue after USR1"
wait_for 60 seen job.log 2 || fail "the job did not resume by itself"
grep -q 'start 2: 4 ranks' "$work/job.log" || fail "the restart is not counted"
sleep 1
victim=
for p in $(pgrep -f "^$PLUMB"); do # only ranks of this job: their environment names it
  tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -qx "SLURM_JOB_ID=$job" &&
    tr '\0' '\n' <"/proc/$p/environ" | grep -qx "SLURM_PROCID=3" && victim=$p
done
[ -n "$victim" ] || fail "found no rank to kill"
kill -9 "$victim"
wait_for 40 is_state "$job" 'FAILED|CANCELLED|NODE_FAIL' || fail "the job did not end after a rank was killed: $(state_of "$job")"
[ -e "$work/run/$final" ] && fail "the run finished too early to show anything"

job=$(submit --nodes=1 --ntasks-per-node=3) || fail "sbatch"
wait_for 120 is_state "$job" 'COMPLETED|FAILED|CANCELLED|TIMEOUT' || fail "the second job did not end"
is_state "$job" COMPLETED || fail "the second job: $(state_of "$job")"
cmp "$work/reference/$final" "$work/run/$final" || fail "the result differs from that of an uninterrupted run"
grep -e "$pattern" "$work/job.log"

job=$(submit --nodes=1 --ntasks-per-node=2) || fail "sbatch" # a cancelled job stays cancelled
rm -rf "$work/run"
wait_for 30 is_state "$job" RUNNING
wait_for 30 seen job.log 4 || fail "the third job did not start"
scancel "$job"
wait_for 30 is_state "$job" CANCELLED || fail "a cancelled job is $(state_of "$job")"
sleep 3
is_state "$job" CANCELLED || fail "a cancelled job came back"
echo "ok"
