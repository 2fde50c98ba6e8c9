#!/usr/bin/env bash
# run_steps.sh "TARGET …" …: runs these targets of the Makefile, also after one that failed, then says how each ended and
# closes with the sum, "N passed, N failed". A step that does not count (a linter) counts as one. Each argument is a lane:
# its targets run one after the other, and the lanes side by side, since most tests wait for something most of the time.
# The closing line is also left in .parts/steps/closing-line.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

logs=.parts/steps
mkdir -p "$logs"

# The closing lines of pytest ("3 failed, 120 passed in 9.1s") and busted ("12 successes / 0 failures / 0 errors / …").
closing_lines() { grep -hE '(passed|failed|errors?).* in [0-9.]+s|successes / ' "$1"; }
count() { # WORDS FILE
    closing_lines "$2" | grep -oE "[0-9]+ ($1)\b" | awk '{ sum += $1 } END { print sum + 0 }'
}

run() { # STEP: leaves its line in the sum at $logs/STEP.sum
    local start=$SECONDS status good bad
    # Unbuffered: progress is to be seen while it happens.
    PYTHONUNBUFFERED=1 make --no-print-directory "$1" 2>&1 | tee "$logs/$1" | sed -u "s/^/[$1] /"
    status=${PIPESTATUS[0]}
    good=$(count 'passed|success|successes|xfailed' "$logs/$1")
    bad=$(count 'failed|failure|failures|error|errors|xpassed' "$logs/$1")
    [ "$status" = 0 ] || [ "$bad" != 0 ] || bad=1
    [ "$status" != 0 ] || closing_lines "$logs/$1" >/dev/null || good=1
    printf '%-14s %5d passed %4d failed %5d s\n' "$1" "$good" "$bad" $((SECONDS - start)) | tee "$logs/$1.sum"
}

rm -f "$logs"/*.sum
lanes=() lane=0
# With job control each lane is a group that can be ended as one; without, the shell makes what is in its background deaf
# to interrupts.
set -m
trap 'kill -- "${lanes[@]/#/-}" 2>/dev/null; exit 130' INT TERM
for steps; do
    # shellcheck disable=SC2086 # a list of words
    (
        export TEST_LANE=$lane TEST_LANES=$#
        for step in $steps; do run "$step"; done
    ) </dev/null &
    lanes+=($!) lane=$((lane + 1))
done
wait "${lanes[@]}"

summary=$(cat "$logs"/*.sum)
# A step without a sum has failed.
awk -v steps="$(wc -w <<<"$*")" 'NF { passed += $2; failed += $4; ended++ }
    END { print passed + 0 " passed, " failed + steps - ended " failed" }' <<<"$summary" >"$logs/closing-line"
printf '\n%s\n\n' "$summary"
cat "$logs/closing-line"
[[ $(cat "$logs/closing-line") == *", 0 failed" ]]
