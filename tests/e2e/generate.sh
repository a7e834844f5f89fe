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

filtered() { "$plumb" generate model="$model" prompt="One day" max_new_tokens=40 threads=1 do_sample=true top_k=40 top_p=0.95 min_p=0.01 typical_p=0.95 repetition_penalty=1.1 seed="$1" 2>/dev/null; }
filtered 1 >"$work/a"
filtered 1 >"$work/b"
filtered 2 >"$work/c"
same "$work/a" "$work/b"
if cmp -s "$work/a" "$work/c"; then fail "two seeds, one text, with every filter"; fi

# A stop string ends the text, which keeps it; the greedy story without it goes on.
"$plumb" generate model="$model" prompt="Once upon a time" max_new_tokens=196 precision=fp32 threads=1 stop_strings="['never', ' play']" >"$work/stopped" 2>"$work/log" || fail "exit code $?"
case $(cat "$work/stopped") in *" play") ;; *) fail "stopped after '$(cat "$work/stopped")'" ;; esac
head -c "$(($(wc -c <"$work/stopped") - 1))" "$work/stopped" | cmp -s -n "$(($(wc -c <"$work/stopped") - 1))" - "$work/continuation" || fail "a stop string changed the text before it"

# Several end ids, here the full stop's too; none of them before min_new_tokens.
cp -r "$model" "$work/ends"
chmod -R u+w "$work/ends"
full_stop=$("$plumb" tokenize --model "$model" --no-special --text "the park." | tr -d '[]' | sed 's/.*, *//')
echo "{\"eos_token_id\": [2, $full_stop]}" >"$work/ends/generation_config.json"
ended() { "$plumb" generate model="$work/ends" prompt="Once upon a time" max_new_tokens=100 precision=fp32 threads=1 "$@" 2>/dev/null; }
[ "$(ended)" = ", there was a little girl named Lily." ] || fail "the full stop did not end '$(ended)'"
ended min_new_tokens=40 >"$work/later"
case $(cut -c -60 "$work/later") in *.*) fail "an end before min_new_tokens: $(cat "$work/later")" ;; esac

ids=$("$plumb" tokenize --model "$model" --text "Once upon a time")
[ "$ids" = "[1, 403, 407, 261, 378]" ] || fail "ids $ids"
text=$(echo "$ids" | "$plumb" tokenize --model "$model" --decode --skip-special)
[ "$text" = '"Once upon a time"' ] || fail "text $text"
[ "$(printf 'a\nb\n' | "$plumb" tokenize --model "$model" --no-special | wc -l)" -eq 2 ] || fail "a line of ids for each line of text"
