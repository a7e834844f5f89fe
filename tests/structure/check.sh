#!/usr/bin/env bash
# What the design promises about the tree, checked on the text of it. usage: check.sh SOURCE_DIR
set -euo pipefail
cd "$1"
failed=0
complain() { echo "$*"; failed=1; }

# One attention: one slot in the table, called from one place, for training, prefill and decoding alike.
calls=$(grep -rn 'PLUMB_RUN(.*attention_forward\|ops->attention_forward' src trainers | wc -l)
[ "$calls" = 1 ] || complain "attention_forward is called from $calls places; training, prefill and decoding share one"
slots=$(grep -c '(\*attention[a-z_]*forward[a-z_]*)' include/plumb/backend.h)
[ "$slots" = 1 ] || complain "the back-end table has $slots forward attentions"
[ "$(grep -rln 'layer_forward(const pass' src | wc -l)" = 1 ] || complain "there is more than one transformer"

# MPI in comm/ only; each library in one folder.
only_in() { # PATTERN FOLDER
  local others
  others=$(grep -rlE "$1" src trainers comm include --include='*.c' --include='*.h' | grep -vE "^$2" || true)
  [ -z "$others" ] || complain "$1 outside $2: $others"
}
only_in '\bMPI_[A-Z][a-z]|<mpi\.h>' comm/
only_in '<yaml\.h>' src/config/
only_in '<pcre2\.h>|<utf8proc\.h>' src/text/
only_in '<immintrin\.h>' src/backend/cpu/
only_in 'pb-c\.h' 'src/(checkpoint|rollout)/'
only_in '<hdf5\.h>' src/io/hdf5.c

# Includes point one way: a folder may include the public headers of folders at its own level or below.
declare -A level=([base]=0 [forest]=0 [status]=0 [io]=1 [hdf5]=1 [comm]=1 [backend]=1 [nn]=2 [text]=2 [stops]=2 [log]=2 [config]=2 [pipeline]=2 [arch]=3 [model]=3 [objective]=3 [optim]=3 [zero]=3 [data]=3
  [metrics]=3 [sampling]=4 [trajectory]=4 [reward]=4 [rollout]=4 [checkpoint]=4 [report]=5)
for file in $(git ls-files 'src/*/*.c' 'src/*/*.h' 'comm/*' 2>/dev/null || find src comm -name '*.[ch]'); do
  folder=$(echo "$file" | sed -E 's#^src/([^/]+)/.*#\1#; s#^comm/.*#comm#')
  own=${level[$folder]:-9}
  for header in $(grep -oE '#include "plumb/[a-z0-9]+\.h"' "$file" | grep -oE '[a-z0-9]+\.h' | sed 's/\.h//'); do
    [ "${level[$header]:-9}" -le "$own" ] || complain "$file includes plumb/$header.h, which lies above it"
  done
done

# Lines fit a window, except where a line is the text of a page.
long=$(git ls-files '*.c' '*.h' 2>/dev/null | grep -v '^src/report/page' | LC_ALL=C.UTF-8 xargs grep -nP '^.{141,}' || true)
[ -z "$long" ] || complain "longer than 140 columns: $long"

# No unfinished work, no paths of a machine.
marks=$(grep -rnE '\b(TODO|FIXME|XXX|not implemented|unimplemented)\b' src include trainers comm cluster --include='*.c' --include='*.h' --include='*.sh' || true)
[ -z "$marks" ] || complain "$marks"
[ "$failed" = 0 ] && echo "the tree is as designed"
exit $failed
