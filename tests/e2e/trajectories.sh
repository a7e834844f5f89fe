#!/usr/bin/env bash
# plumb trajectories on a folder of 10 iterations of 2 writers: the list, choosing and sorting, JSON, verification, what is refused. Where $PLUMB_PYTHON (python3) has h5py, the files and
# the master file through h5py too.
. "$(dirname "$0")/common.sh"
log_program=${3:?usage: $0 PLUMB MPIRUN LOG_PROGRAM}
python=${PLUMB_PYTHON:-python3}
run=$work/run
"$log_program" log "$run/trajectories" 2 10 >/dev/null # 48 sequences of 40 tokens each; merged up to 8; sequence 5 of each writer has no score

show() { "$plumb" trajectories "$@" >"$work/log" 2>&1 || fail "plumb trajectories $*"; }
lines() { [ "$(wc -l <"$work/log")" -eq "$1" ] || fail "expected $1 lines: $2"; }
refused() { # CODE TEXT ARGUMENTS
    local want=$1 text=$2
    shift 2
    code=0
    "$plumb" trajectories "$@" >"$work/log" 2>&1 || code=$?
    [ "$code" -eq "$want" ] || fail "exit code $code instead of $want: $*"
    has "$work/log" "$text"
}

show "$run"
lines 11 "a title and ten iterations"
has "$work/log" '^ +10 +10 +48 +1920 .* 40 +33\.33 +20$' # sequences, tokens, length, share of end tokens, KL
cp "$work/log" "$work/all"
show "$run/trajectories"
same "$work/log" "$work/all"
show "$run" --iteration 3-5 --finish length
lines 4 "three iterations"
has "$work/log" '^ +4 +4 +16 +640 .* 40 +0 +20$'

show "$run" --print --iteration 2 --contains "sequence 17"
[ "$(grep -c '^--- ' "$work/log")" -eq 1 ] || fail "one sequence has this text"
has "$work/log" '^--- iteration 2, sequence 17: record 17, .* 40 tokens, length, kl 20$'
has "$work/log" '^iteration 2, sequence 17$'
show "$run" --json --sort score --limit 5
lines 5 "the limit"
scores=$(sed -E 's/.*"score":([-0-9.e]+),.*/\1/' "$work/log")
[ "$scores" = "$(echo "$scores" | sort -gr)" ] || fail "not sorted: $scores"
best=$(echo "$scores" | head -n 1)
[ "$(awk 'NR > 1 && $7 > m { m = $7 } END { print m }' "$work/all")" = "$(printf '%.4g' "$best")" ] || fail "the best is not the largest of the list"
show "$run" --json --sort score
lines 480 "all sequences"
tail -n 20 "$work/log" | grep -vq '"score":"NaN"' && fail "sequences without a score come last"
show "$run" --json --sort score --reverse --limit 1
worst=$(sed -E 's/.*"score":([-0-9.e]+),.*/\1/' "$work/log")
[ "$(awk 'NR > 1 && (m == "" || $6 < m) { m = $6 } END { print m }' "$work/all")" = "$(printf '%.4g' "$worst")" ] || fail "the worst is not the smallest of the list"
show "$run" --json --min-score "$best"
lines 1 "at least the best score"
show "$run" --json --max-score -1
lines 0 "no score is negative, and none is not a score"
show "$run" --iteration 7 --tokens --limit 2
[ "$(grep -cE '^ +[0-9]+ +[0-9]+ +1( +[-0-9.e+]+){8}$' "$work/log")" -eq 80 ] || fail "two tables of 40 tokens"
show "$run" --iteration 7 --tokens --json --limit 1
has "$work/log" '"ids":\[0,1,2,'

show "$run" --verify
has "$work/log" '^complete: 10 iterations, 480 sequences, 19200 tokens$'
refused 2 'score, length or kl' "$run" --print --sort best
refused 2 'add --print' "$run" --limit 3
refused 2 'unknown option --bad' "$run" --bad
refused 2 'usage: plumb trajectories DIR'
refused 2 'two with a dash' "$run" --iteration 5-3
refused 2 'a value is missing after --limit' "$run" --limit
refused 2 'no other option' "$run" --verify --json
refused 1 '10 of them are there, from 1 to 10' "$run" --iteration 11
refused 1 'no trajectories' "$work"
"$plumb" trajectories --help | grep -q -- --contains || fail "help"
if [ -w /dev/full ]; then
    "$plumb" trajectories "$run" --json >/dev/full 2>"$work/log" && fail "a full disk was not noticed"
    has "$work/log" 'cannot write the output'
fi

if "$python" -c 'import h5py' 2>/dev/null; then
    "$python" "$root/tests/e2e/trajectories.py" "$run/trajectories" >"$work/log" 2>&1 || fail "h5py"
else
    echo "$python lacks h5py: that part was left out"
fi

# A manifest that is lost or damaged comes again from the files, to the byte.
manifest=$run/trajectories/manifest.pb
cp "$manifest" "$work/manifest"
rm "$manifest"
refused 1 'with manifest.pb; --rebuild' "$run"
show "$run" --rebuild
has "$work/log" '^rebuilt: 10 iterations, 480 sequences, 19200 tokens$'
same "$manifest" "$work/manifest"
show "$run" --verify
refused 2 'add|alone' "$run" --rebuild --json
refused 2 'needs --rebuild' "$run" --partial

file=$run/trajectories/iterations-000005-000008.h5
printf 'x' | dd of="$file" bs=1 seek=20000 conv=notrunc status=none
refused 1 'iterations-000005-000008\.h5' "$run" --verify
refused 1 'iterations-000005-000008\.h5' "$run" --iteration 6
rm "$file"
refused 1 'iterations-000005-000008\.h5' "$run" --verify
show "$run" --iteration 1-4

# What is damaged is named, and left out.
truncate -s -100 "$run/trajectories/iterations-000001-000004.h5"
cp -r "$run" "$work/again"
rm "$manifest"
echo earlier >"$run/trajectories/iterations-000001-000004.h5.left-out"
mkdir "$run/trajectories/iteration-000099.w0.h5"
refused 1 'left out: .*iterations-000001-000004\.h5' "$run" --rebuild
has "$work/log" '^rebuilt: 2 iterations, 96 sequences'
show "$run" --verify
[ -f "$run/trajectories/iterations-000001-000004.h5.left-out.2" ] || fail "it was not put aside"
has "$run/trajectories/iterations-000001-000004.h5.left-out" '^earlier$'
show "$work/again" --rebuild --partial
has "$work/log" 'left out: .*iterations-000001-000004\.h5'
