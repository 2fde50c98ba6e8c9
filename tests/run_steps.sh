#!/usr/bin/env bash
# run_steps.sh TARGET...: runs these targets of the Makefile one after the other, also after one that failed, then says
# how each ended and closes with the sum, "N passed, N failed". A step that does not count (a linter) counts as one.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

logs=.parts/steps
mkdir -p "$logs"
summary="" passed=0 failed=0

# The closing lines of pytest ("3 failed, 120 passed, 1 skipped in 9.1s") and busted ("12 successes / 0 failures / …").
count() { # WORDS FILE
    grep -hE '(passed|failed|errors?).* in [0-9.]+s|successes / ' "$2" |
        grep -oE "[0-9]+ ($1)\b" | awk '{ sum += $1 } END { print sum + 0 }'
}

for step; do
    printf '\n=== make %s\n' "$step"
    start=$SECONDS
    # Unbuffered: progress is to be seen while it happens.
    PYTHONUNBUFFERED=1 make --no-print-directory "$step" 2>&1 | tee "$logs/$step"
    status=${PIPESTATUS[0]}
    good=$(count 'passed|success|successes|xfailed' "$logs/$step")
    bad=$(count 'failed|failure|failures|error|errors|xpassed' "$logs/$step")
    [ "$status" = 0 ] || [ "$bad" != 0 ] || bad=1
    [ "$status" != 0 ] || [ "$good" != 0 ] || good=1
    passed=$((passed + good)) failed=$((failed + bad))
    summary+=$(printf '%-14s %5d passed %4d failed %5d s' "$step" "$good" "$bad" $((SECONDS - start)))$'\n'
done

printf '\n%s\n%d passed, %d failed\n' "$summary" "$passed" "$failed"
[ "$failed" = 0 ]
