#!/bin/bash
# Generation and tokenization: the story that the model's own program tells, token by token; sampling that repeats by its seed.
. "$(dirname "$0")/common.sh"
"$plumb" generate model="$model" prompt="Once upon a time" max_new_tokens=196 precision=fp32 threads=1 >"$work/continuation" 2>"$work/log" || fail "exit code $?"
printf 'Once upon a time' | cat - "$work/continuation" | head -c -1 >"$work/story"
same "$work/story" "$model/greedy_200.expected.txt"
has "$work/log" "^196 tokens in "

sampled() { "$plumb" generate model="$model" prompt="One day" max_new_tokens=20 threads=1 do_sample=true temperature=1.2 top_p=0.9 seed="$1" 2>/dev/null; }
sampled 1 >"$work/a"
sampled 1 >"$work/b"
sampled 2 >"$work/c"
same "$work/a" "$work/b"
if cmp -s "$work/a" "$work/c"; then fail "two seeds, one text"; fi

ids=$("$plumb" tokenize --model "$model" --text "Once upon a time")
[ "$ids" = "[1, 403, 407, 261, 378]" ] || fail "ids $ids"
text=$(echo "$ids" | "$plumb" tokenize --model "$model" --decode --skip-special)
[ "$text" = '"Once upon a time"' ] || fail "text $text"
[ "$(printf 'a\nb\n' | "$plumb" tokenize --model "$model" --no-special | wc -l)" -eq 2 ] || fail "a line of ids for each line of text"
