#!/bin/sh
# other_pythons.sh PYTHON VERSION...: the unit and contract tests on every VERSION that is found here and is not
# PYTHON's, each with the same locks in an environment of its own. Those not found are named: for them nothing is proven.
set -eu

main=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

# By name, and where pyenv keeps them: its shims answer to names they cannot run.
find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$candidate" -c 'import sys; assert "%d.%d" % sys.version_info[:2] == sys.argv[1]' "$1" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

unproven="" failed="" tested="" pids=""
for version; do
    [ "$version" = "$main" ] && continue
    if ! python=$(find_python "$version"); then
        unproven="$unproven $version"
        continue
    fi
    tested="$tested $version"
    echo "preparing Python $version"
    requirements/venv.sh ".parts/python$version" "$python" requirements/dev.lock
    pytest=".parts/python$version/bin/python -m pytest -q -p no:cacheprovider"
    # The real parts do not know which Python asks them. All versions at once: each takes one core.
    { $pytest tests/unit && $pytest tests/contract -k fake; } >".parts/python$version.log" 2>&1 &
    pids="$pids $!:$version"
done
for each in $pids; do
    wait "${each%%:*}" || failed="$failed ${each##*:}"
    echo "--- Python ${each##*:}"
    cat ".parts/python${each##*:}.log"
done
[ -n "$tested" ] || echo "No other Python: 0 passed in 0s"
[ -z "$unproven" ] || echo "Not found here, so nothing is proven for Python:$unproven"
[ -z "$failed" ] || { echo "Failed on Python:$failed" >&2; exit 1; }
