#!/bin/bash
# TERM to one rank of plumb eval and plumb score while they compute: exit code 75 on all, one line that says so, and nothing written; what was there before stays.
. "$(dirname "$0")/common.sh"
for ((i = 0; i < 5; i++)); do # a million tokens: more than a fast machine reads before the signal comes
    sed -e '1 s/^\[//' -e '$ s/\]$//' $pairs | if [ $i -lt 4 ]; then sed '$ s/$/,/'; else cat; fi
done | { echo '['; cat; echo ']'; } >"$work/pairs.json"
must 2 reward model="$model" train_file=$pairs max_length=300 max_steps=2 output_dir="$work/reward"

stop() { # what the run says before it computes, command, its arguments
    local says=$1
    shift
    : >"$work/log"
    ranks 2 "$@" &
    local shell=$! rank=
    appears "$work/log" "^$says: "
    rank=$(last_child "$(first_child "$shell")")
    [ -n "$rank" ] || fail "plumb $1 ended before it could be stopped"
    kill -TERM "$rank"
    wait "$shell" || true
    has "$work/log" "^plumb $1: stopped by a signal; nothing was written$"
    [ "$(grep -c '^plumb ' "$work/log")" -eq 1 ] || fail "plumb $1: the message is not there once"
    has "$work/log" 'Exit code: *75'
}
score=(score model="$model" adapter="$work/reward/adapter" input_file="$work/pairs.json" max_length=300)
stop records "${score[@]}" output_file="$work/scores.jsonl"
[ -z "$(ls "$work" | grep scores)" ] || fail "plumb score left $(ls "$work" | grep scores)"
echo before >"$work/scores.jsonl"
stop records "${score[@]}" output_file="$work/scores.jsonl"
[ "$(cat "$work/scores.jsonl")" = before ] || fail "plumb score touched an older result"
stop held-out eval model="$model" eval_file="$work/pairs.json" field_output=chosen max_length=300 output_dir="$work/eval"
[ ! -e "$work/eval/eval_results.json" ] || fail "plumb eval has written a result"
if grep -q '^loss' "$work/log"; then fail "plumb eval has printed a result"; fi
