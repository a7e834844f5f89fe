#!/bin/bash
# plumb bestofn goes on where it was: stopped by TERM, USR1 or stop_after, killed at any moment, on another number of ranks, it leaves the bytes of a run that nobody stopped.
. "$(dirname "$0")/common.sh"
mkdir "$work/mpi"
export TMPDIR=$work/mpi # of Open MPI: what killed jobs leave in a folder that all share can keep the next mpirun busy for a minute
for name in Lily Ben Max Sue Tim Mia Sam Zoe; do
    for start in "Once upon a time" "The little dog" "One day, a big bear" "Tom and"; do echo "{\"prompt\": \"$start $name\"}"; done
done >"$work/prompts.jsonl"
best() { # ranks, output file, further settings: chunks of 4 prompts, 8 chunks
    local n=$1 to=$2
    shift 2
    ranks "$n" bestofn model="$model" input_file="$work/prompts.jsonl" output_file="$to" num_generations=128 max_completion_length=14 min_p=0.02 threads=1 \
        reward_funcs="[regex:she, regex:He, 'program:exec bash $work/judge.sh']" "$@"
}
# A judge that does something to its rank, once, at a request of its choice: no clock decides when.
cat >"$work/judge.sh" <<-'END'
	trap '' TERM USR1
	here=$(dirname "$0")
	n=0 at=$(cat "$here/at" 2>/dev/null || echo 0)
	while read -r line; do
	    n=$((n + 1))
	    if [ $n -eq "$at" ] && mkdir "$here/done" 2>/dev/null; then
	        (sleep "$(cat "$here/delay")"; kill -"$(cat "$here/signal")" $PPID) <&- >&- &
	        [ "$(cat "$here/delay")" != 0 ] || wait
	    fi
	    echo "0.$((${#line} % 7))"
	done
END
disturb() { # signal, at which request of a rank, how long after it
    rm -rf "$work/done"
    echo "${3:-0}" >"$work/delay"
    echo "$1" >"$work/signal"
    echo "$2" >"$work/at"
}
settled() { # file: the result is there, and nothing beside it
    same "$work/whole.jsonl" "$1"
    [ "$(echo "$1"*)" = "$1" ] || fail "left beside the result: $(echo "$1"*)"
}

# What it would cost, without taking a step.
best 2 "$work/whole.jsonl" --dry-run
[ "$code" -eq 0 ] || fail "--dry-run: exit code $code"
has "$work/log" "^base weights +0\.[0-9] MiB  once on each node$"
has "$work/log" "^keys and values +1024 MiB  on each rank"
has "$work/log" "^prompts +32  of at most [0-9]+ tokens, [0-9]+ together$"
has "$work/log" "^completions +4096  \(128 of each prompt\)$"
has "$work/log" "^tokens to generate +57344  at most \(max_completion_length 14\)$"
has "$work/log" "^chunks +8  of 512 completions"
[ -z "$(ls "$work" | grep whole)" ] || fail "--dry-run wrote $(ls "$work")"

best 2 "$work/whole.jsonl"
[ "$code" -eq 0 ] || fail "exit code $code"
cp "$work/log" "$work/whole.log"
[ "$(wc -l <"$work/whole.jsonl")" -gt 20 ] || fail "few records"
settled "$work/whole.jsonl"
# This tokenizer's decoder drops a space at the beginning: records keep it, so that they give the ids that were sampled. Cut completions are said.
has "$work/whole.jsonl" '"chosen": " [a-z]'
has "$work/whole.jsonl" '"finish_chosen": "length", "score_chosen": '
has "$work/whole.log" "^records_cut_off [1-9]"

# TERM while the third chunk is judged, which is kept; while a later one is sampled, which is given up; each time on another number of ranks.
disturb TERM 700
best 2 "$work/term.jsonl"
[ "$code" -eq 75 ] || fail "TERM: exit code $code"
has "$work/log" "^stopped after 12 of 32 prompts; kept in $work/term.jsonl.partial; the same command goes on"
[ ! -e "$work/term.jsonl" ] || fail "a result that is not whole has its name"
disturb TERM 512 0.05
best 1 "$work/term.jsonl"
[ "$code" -eq 75 ] || fail "TERM again: exit code $code"
has "$work/log" "^resumed from .*term.jsonl.partial \(12 of 32 prompts\)"
has "$work/log" "^stopped after (16|2[048]) of 32 prompts"

# With other settings or other data it is refused by name.
best 2 "$work/term.jsonl" seed=7
[ "$code" -eq 1 ] || fail "another seed: exit code $code"
has "$work/log" 'partial/step-00000[4567]: belongs to another run: it has "seed: 42.*this run has "seed: 7.*resume=never'
sed -i '$ d' "$work/prompts.jsonl"
best 1 "$work/term.jsonl"
[ "$code" -eq 1 ] || fail "other data: exit code $code"
has "$work/log" 'belongs to another run: it has "data='
echo '{"prompt": "Tom and Zoe"}' >>"$work/prompts.jsonl"
# What changes no result may change; what a kill left behind the last chunk is dropped.
echo '{"half' >>"$work/term.jsonl.partial/records.jsonl"
best 3 "$work/term.jsonl" rollout_batch=16
[ "$code" -eq 0 ] || fail "after TERM: exit code $code"
settled "$work/term.jsonl"
same <(sed -n '/^prompts/,$ p' "$work/whole.log" | grep -v ' in ') <(sed -n '/^prompts/,$ p' "$work/log" | grep -v ' in ')

# USR1 waits for the end of the chunk, as stop_after does.
disturb USR1 300
best 2 "$work/usr1.jsonl"
[ "$code" -eq 75 ] || fail "USR1: exit code $code"
has "$work/log" "^stopped after 8 of 32 prompts"
best 1 "$work/usr1.jsonl" stop_after=1s
if [ "$code" -eq 75 ]; then best 2 "$work/usr1.jsonl"; fi
[ "$code" -eq 0 ] || fail "after USR1: exit code $code"
settled "$work/usr1.jsonl"

# kill -9, at several requests; a damaged file is not taken for a good one.
for at in 10 900 300; do
    disturb KILL $at
    best 2 "$work/kill.jsonl"
    [ "$code" -ne 0 ] || fail "kill -9 was not noticed"
done
[ ! -e "$work/kill.jsonl" ] || fail "a killed run has a result"
sed 's/Lily/Lilo/' "$work/kill.jsonl.partial/records.jsonl" >"$work/damaged"
cp "$work/damaged" "$work/kill.jsonl.partial/records.jsonl"
disturb TERM 300
best 2 "$work/kill.jsonl"
has "$work/log" "beginning anew: .*records.jsonl: damaged"
[ "$code" -eq 75 ] || fail "a damaged file: exit code $code"
echo mine >"$work/kill.jsonl.partial/notes.txt"
best 2 "$work/kill.jsonl"
has "$work/log" "^resumed from"
[ "$code" -eq 0 ] || fail "after kill -9: exit code $code"
same <(echo mine) "$work/kill.jsonl.partial/notes.txt" # nothing but what it has made is removed
rm -r "$work/kill.jsonl.partial"
settled "$work/kill.jsonl"

# A result is not written over, but resume=never begins anew; it is replaced as a whole.
best 2 "$work/usr1.jsonl"
[ "$code" -eq 1 ] || fail "a result that is there: exit code $code"
has "$work/log" "output_file: .*usr1.jsonl is there already; expected another name, or resume=never"
disturb TERM 300
best 2 "$work/usr1.jsonl" resume=never
[ "$code" -eq 75 ] || fail "TERM over a result: exit code $code"
same "$work/whole.jsonl" "$work/usr1.jsonl"
best 1 "$work/usr1.jsonl" --resume never
[ "$code" -eq 0 ] || fail "--resume never: exit code $code"
if grep -q resumed "$work/log"; then fail "--resume never went on"; fi
settled "$work/usr1.jsonl"

# A folder that is missing is made, one that cannot be is said before the work begins.
best 1 "$work/a/b/best.jsonl"
[ "$code" -eq 0 ] || fail "a missing folder: exit code $code"
settled "$work/a/b/best.jsonl"
best 2 "$work/whole.jsonl/best.jsonl"
[ "$code" -eq 1 ] || fail "a file for a folder: exit code $code"
has "$work/log" "^plumb bestofn: .*whole.jsonl: cannot make the directory"
