#!/usr/bin/env bash
# run_steps.sh TARGET...: runs these targets of the Makefile one after the other, also after one that failed, then says
# how each ended and closes with the sum, "N passed, N failed". A step that does not count (a linter) counts as one.
# The closing line is also left in .parts/steps/closing-line.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

logs=.parts/steps
mkdir -p "$logs"
summary="" passed=0 failed=0

# The closing lines of pytest ("3 failed, 120 passed in 9.1s") and busted ("12 successes / 0 failures / 0 errors / …").
closing_lines() { grep -hE '(passed|failed|errors?).* in [0-9.]+s|successes / ' "$1"; }
count() { # WORDS FILE
    closing_lines "$2" | grep -oE "[0-9]+ ($1)\b" | awk '{ sum += $1 } END { print sum + 0 }'
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
    [ "$status" != 0 ] || closing_lines "$logs/$step" >/dev/null || good=1
    passed=$((passed + good)) failed=$((failed + bad))
    summary+=$(printf '%-14s %5d passed %4d failed %5d s' "$step" "$good" "$bad" $((SECONDS - start)))$'\n'
done

closing="$passed passed, $failed failed"
printf '\n%s\n%s\n' "$summary" "$closing"
echo "$closing" >"$logs/closing-line"
[ "$failed" = 0 ]
