#!/usr/bin/env bash
# run_kill_logging.sh PROGRAM: SIGKILL at random moments of logging trajectories (writing, committing, compacting, cleaning
# up). Every iteration that was reported as committed must be there once, whole, and the folder must verify; beside a running writer too. Then: a file system that runs full.
set -u
program=$1
trials=${TRIALS:-40}
dir=$(mktemp -d)
running=
trap '[ -n "$running" ] && kill -9 $running 2>/dev/null; rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*"; ls -la "$dir/run"; cat "$dir"/err*; exit 1; }
RANDOM=${SEED:-23}
middle=0 last=0 beside=0

for trial in $(seq 1 "$trials"); do
  [ $((trial % 10)) = 1 ] && rm -rf "$dir/run" && last=0 # short folders, so that checking is quick
  : >"$dir/out"
  "$program" log "$dir/run" $((trial % 3 + 1)) >"$dir/out" 2>"$dir/err" &
  running=$!
  for i in $(seq 1 600); do [ -s "$dir/out" ] && break; sleep 0.01; done
  [ -s "$dir/out" ] || fail "nothing was committed in time"
  if [ $((trial % 8)) = 0 ]; then # a reader beside the writer
    "$program" check "$dir/run" >"$dir/seen" 2>"$dir/err-check" || fail "reading beside a run"
    [ "$(cat "$dir/seen")" -gt "$last" ] || fail "a reader beside the run saw $(cat "$dir/seen") iterations"
    beside=$((beside + 1))
  fi
  sleep 0.0$((RANDOM % 70 + 10))
  kill -9 $running; wait $running 2>/dev/null; running=
  promised=$(tail -n 1 "$dir/out")
  found=$("$program" check "$dir/run" 2>"$dir/err-check") || fail "the folder is damaged after a kill"
  [ "$found" -ge "$promised" ] && [ "$found" -ge "$last" ] || fail "iteration $promised was committed, the last is $found"
  listed=$(ls "$dir/run" | grep -c '^iteration-.*h5$')
  { ls "$dir/run" | grep -q 'part$' || [ "$listed" -gt 12 ]; } && middle=$((middle + 1))
  last=$found
done
[ "$middle" -gt 0 ] || fail "no kill came in the middle: the test shows nothing"
"$program" check "$dir/run" >/dev/null || fail "damaged at the end"

# Files cannot grow beyond a limit: what is committed stays, what fails says why. (A small file system would be better, but needs rights.)
rm -rf "$dir/run"
(ulimit -f 40; exec "$program" full "$dir/run") >"$dir/out" 2>"$dir/err" || fail "a full disk was not handled"
grep -q 'cannot write: File too large' "$dir/err" || fail "the message does not say why"
[ "$(tail -n 1 "$dir/out")" -ge 1 ] || fail "nothing was committed before the disk was full"
ls "$dir/run" | grep -q 'part$' && fail "an unfinished file is left"
echo "ok: $trials kills, $middle of them in the middle, $beside readings beside the run, last iteration $last; full after $(tail -n 1 "$dir/out")"
