#!/bin/sh
# venv.sh DIR PYTHON LOCK...: the virtual environment DIR with exactly what the locks name, every file checked against
# its hash. Made anew when the locks, the interpreter or the place of DIR changed; otherwise nothing is done.
set -eu

dir=$1 python=$2
shift 2

say() { echo "venv: $*"; }
die() { say "$*" >&2; exit 1; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "$python is not Python 3.11 or newer; name one that is: make PYTHON=python3.12"

# Debian leaves out of python3 what a virtual environment needs.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    command -v apt-get >/dev/null 2>&1 || die "$python lacks ensurepip and venv; install $package or what it is called here"
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi
    say "installing $package (apt-get)"
    install() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package" >/dev/null; }
    install 2>/dev/null || { $sudo apt-get update -qq && install; } || die "apt-get install $package failed"
fi

wanted=$("$python" -c 'import sys; print(sys.executable, sys.version)'; echo "$(pwd)/$dir"; cat "$0" "$@")
if [ -e "$dir/.complete" ] && [ "$(cat "$dir/.complete")" = "$wanted" ]; then
    exit 0
fi

say "installing $* into $dir (half a minute)"
rm -rf "$dir"
"$python" -m venv "$dir"
for lock; do
    # Wheels only: building a source archive would run code that no lock names.
    "$dir/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: -r "$lock"
done
printf '%s\n' "$wanted" >"$dir/.complete"
