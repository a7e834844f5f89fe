#!/usr/bin/env bash
# run_fault.sh MODE PROGRAM MPIRUN: one fault, watched from outside.
# Each rank runs under a shell that outlives it, so that the launcher sees nothing and only plumb's own watchdog can end the job.
set -u
mode=$1 program=$2 mpirun=$3
ranks=${FAULT_RANKS:-3}
limit=${FAULT_LIMIT:-3}          # seconds of silence until the verdict; the default of plumb is 15
allowed=$((limit + 10))          # verdict, 2 s for the launcher, 3 s for MPI_Abort, a busy machine
dir=$(mktemp -d)
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0} # MPI libraries keep memory to the end
export PLUMB_WATCHDOG_SECONDS=$limit OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
launcher=
finish() {
  for f in "$dir"/pid-*; do [ -e "$f" ] && kill -9 "$(cat "$f")" 2>/dev/null; done
  if [ -n "$launcher" ]; then # it takes the shells with it
    kill -CONT "$launcher" 2>/dev/null; kill -TERM "$launcher" 2>/dev/null
    wait "$launcher" 2>/dev/null
  fi
  rm -rf "$dir"
}
trap finish EXIT
fail() { echo "FAILED ($mode): $*"; sed 's/^/  err: /' "$dir/err"; exit 1; }
alive() { local n=0 f p; for f in "$dir"/pid-*; do p=$(cat "$f"); grep -qs rank_program "/proc/$p/cmdline" && [ "$(sed 's/.*) //; s/ .*//' "/proc/$p/stat" 2>/dev/null)" != Z ] && n=$((n + 1)); done; echo $n; }
signal_ranks() { local f; for f in "$dir"/pid-*; do kill "-$1" "$(cat "$f")"; done; }

program_mode=$mode
case $mode in launcher|plain) program_mode=pause ;; esac
hide='"$0" "$@"; code=$?; echo $code > '"$dir"'/code-$OMPI_COMM_WORLD_RANK; sleep 60'
case $mode in
  compute|pause|plain) hide='exec "$0" "$@"' ;;       # these end well, or by the launcher
  mismatch) export PLUMB_COMM_CHECK=1 ;;
esac
"$mpirun" -n "$ranks" --oversubscribe sh -c "$hide" "$program" "$program_mode" "$dir" >"$dir/out" 2>"$dir/err" &
launcher=$!
for i in $(seq 1 300); do [ "$(ls "$dir" | grep -c '^pid-')" = "$ranks" ] && break; sleep 0.1; done
[ "$(ls "$dir" | grep -c '^pid-')" = "$ranks" ] || fail "the ranks did not start"
start=$(date +%s)
victim=$(cat "$dir/pid-1")

case $mode in
  compute) wait "$launcher"; code=$?; launcher=; [ $code = 0 ] || fail "long local work ended the job (exit $code)"; echo ok; exit 0 ;;
  pause) # the whole job is stopped for longer than the limit, and goes on
    signal_ranks STOP; sleep $((limit + 2)); signal_ranks CONT
    wait "$launcher"; code=$?; launcher=; [ $code = 0 ] || fail "a job that was stopped and continued did not finish (exit $code)"
    [ -s "$dir/err" ] && fail "noise on a good run"
    echo ok; exit 0 ;;
  launcher) kill -STOP "$launcher"; kill -9 "$victim" ;;  # MPI_Abort reaches nobody
  bulk) sleep 0.5; kill -9 "$victim" ;;
  plain) kill -9 "$victim" ;;                             # the launcher sees it and sends TERM, which is only noted
esac

while [ "$(alive)" != 0 ]; do
  [ $(($(date +%s) - start)) -gt "$allowed" ] && fail "$(alive) ranks still run after $allowed s"
  sleep 0.2
done
took=$(($(date +%s) - start))
case $mode in
  kill|stop|exit|finalize|launcher|bulk) # the launcher is stopped in one case, and passes nothing on until it continues
    [ "$mode" = launcher ] && { kill -CONT "$launcher"; sleep 1; }
    grep -Eq "rank 2 \(host [^ ]+, pid [0-9]+\): rank 1 \(host [^ ]+, pid $victim\) has been silent for" "$dir/err" || fail "no line names rank 1"
    grep -Eq 'last heard at step|never heard of' "$dir/err" || fail "the line does not say what rank 1 did"
    [ "$(grep -c 'has been silent' "$dir/err")" = 1 ] || fail "the line was printed more than once" ;;
  late) grep -Eq 'waited 2 s in sum_i64 .*not there: .*rank 1 \(host' "$dir/err" || fail "no line names the late rank" ;;
  bug) [ $took -le 7 ] || fail "the end took $took s"
    grep -q 'plumb: bug at .*rank_program.c:.*on purpose' "$dir/err" || fail "no line names the bug" ;;
  mismatch) grep -q 'the ranks disagree: this one calls' "$dir/err" || fail "no line names the calls" ;;
  abort|plain) [ $took -le 7 ] || fail "the end took $took s" ;;
esac
echo "ok: ended after $took s"; grep '^plumb' "$dir/err" | head -2
