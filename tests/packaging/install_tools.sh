#!/bin/sh
# install_tools.sh DEST: nginx, Caddy, tinyproxy, shellcheck, Prometheus, Redis and libfaketime from Debian's packages,
# unpacked into DEST and not installed, so that no server starts on this machine and its configuration stays as it is.
# What tests call by its plain name, as operators do, is installed where it is missing.
set -eu

dest=${1:?usage: install_tools.sh DEST}
say() { echo "install_tools: $*"; }
die() { say "$*" >&2; exit 1; }
if [ "$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi

# --- by plain name --------------------------------------------------------------------------------------------------

missing=""
for wanted in curl:curl openssl:openssl systemd-analyze:systemd; do
    command -v "${wanted%:*}" >/dev/null 2>&1 || missing="$missing ${wanted#*:}"
done
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || die "this needs Debian 12 or newer (there is no apt-get here)"
    say "installing$missing (apt-get)"
    # shellcheck disable=SC2086 # a list of words
    install() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null 2>&1; }
    install || { $sudo apt-get update -qq && install; } || die "apt-get install$missing failed"
fi

# --- unpacked -------------------------------------------------------------------------------------------------------

works() {
    [ -e "$dest/.complete" ] && "$dest/usr/sbin/nginx" -v && "$dest/usr/bin/caddy" version &&
        "$dest/usr/bin/tinyproxy" -v && "$dest/usr/bin/shellcheck" --version && "$dest/usr/bin/promtool" --version &&
        LD_LIBRARY_PATH=$(echo "$dest"/usr/lib/*-linux-gnu) "$dest/usr/bin/redis-server" --version &&
        [ "$(LD_PRELOAD=$(echo "$dest"/usr/lib/*/faketime/libfaketimeMT.so.1) FAKETIME='2001-01-01 00:00:00' date +%Y)" = 2001 ]
} >/dev/null 2>&1

if works; then exit 0; fi
command -v apt-get >/dev/null 2>&1 || die "this needs Debian 12 or newer (there is no apt-get here)"
say "unpacking nginx, Caddy, tinyproxy, shellcheck, Prometheus, Redis and libfaketime into $dest"

mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
work=$(mktemp -d "$dest/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
cd "$work"
# The libraries behind Redis are what it needs.
download() {
    apt-get -qq -o APT::Sandbox::User="$(id -un)" download \
        nginx caddy tinyproxy-bin shellcheck prometheus libfaketime redis-server redis-tools libatomic1 libjemalloc2 liblzf1
}
# The lists are fetched only where the ones at hand do not do: that is the slow half.
download 2>/dev/null || { $sudo apt-get update -qq && download; } || die "apt-get download failed"
for deb in *.deb; do
    dpkg-deb -x "$deb" "$dest"
done
touch "$dest/.complete"
works || die "what was unpacked does not run here: $(ldd "$dest/usr/sbin/nginx" | grep 'not found')"
