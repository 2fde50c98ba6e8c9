#!/bin/sh
# install_prosody.sh DEST: both Prosody versions the modules must run on, side by side in DEST/prosody-0.12 and
# DEST/prosody-13, each with the commands `prosody` and `prosodyctl` at its top.
#
# They are Debian's own packages, unpacked and not installed: a Prosody that is installed on this machine, and this
# machine's list of sources, stay as they are. Only the Lua libraries, busted and luacheck are installed by apt-get,
# and only those that are missing.
set -eu

dest=${1:?usage: install_prosody.sh DEST}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)

say() { echo "install_prosody: $*"; }
die() { say "$*" >&2; exit 1; }

# --- the Lua libraries ------------------------------------------------------------------------------------------------

# Asked of Lua and not of dpkg: what counts is whether Prosody will find them.
lua_ready() {
    command -v lua5.4 busted luacheck >/dev/null 2>&1 &&
        lua5.4 -e 'for _, name in ipairs { "lxp", "lfs", "ssl", "socket", "bit", "lunbound" } do require(name) end' \
            >/dev/null 2>&1
}

if ! lua_ready; then
    command -v apt-get >/dev/null 2>&1 || die "this needs Debian 12 or newer (there is no apt-get here)"
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi
    say "installing the Lua libraries of Prosody, busted and luacheck (apt-get)"
    packages="lua5.4 lua5.4-bitop lua5.4-expat lua5.4-filesystem lua5.4-sec lua5.4-socket lua5.4-unbound lua-busted lua-check"
    install() {
        # shellcheck disable=SC2086 # a list of words
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >"$dest/apt.log" 2>&1
    }
    # The lists are fetched only where the ones at hand do not do: that is the slow half.
    install || { $sudo apt-get update -qq >/dev/null; install; } || { cat "$dest/apt.log" >&2; die "apt-get install failed"; }
    lua_ready || die "the Lua libraries are installed, but lua5.4 does not find them: look into $dest/apt.log"
fi

# --- Prosody ----------------------------------------------------------------------------------------------------------

# The commands carry the path: a tree that was moved here is made anew.
ready() { [ -e "$dest/prosody-$1/.complete" ] && grep -qF "'$dest/prosody-$1/usr/bin/" "$dest/prosody-$1/prosody"; }

if ready 0.12 && ready 13; then
    say "Prosody 0.12 and 13 are in $dest"
    exit 0
fi

command -v apt-get >/dev/null 2>&1 || die "this needs Debian 12 or newer (there is no apt-get here)"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
case $codename in
    bookworm) suite_13=bookworm-backports ;;
    *) suite_13=trixie ;;
esac
suite_012=bookworm

# The mirror this machine uses already. Its own release says whose it is, once its lists have been fetched; before that
# (a fresh container) the first source of this release has to do.
sources=$(apt-get indextargets --format '$(CREATED_BY)|$(COMPONENT)|$(RELEASE)|$(CODENAME)|$(ORIGIN)|$(REPO_URI)')
mirror=$(echo "$sources" | awk -F'|' -v codename="$codename" '
    $1 != "Packages" || $2 != "main" || ($3 != codename && $4 != codename) { next }
    $5 == "Debian" { print $6; found = 1; exit }
    first == ""    { first = $6 }
    END            { if (!found) print first }')
[ -n "$mirror" ] || die "no Debian source with the component main for '$codename' in this machine's apt configuration"

work=$(mktemp -d "$dest/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/none" "$work/debs"

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
signed=""
[ -e "$keyring" ] && signed="[signed-by=$keyring]"
for suite in $(printf '%s\n' "$suite_012" "$suite_13" | sort -u); do
    echo "deb $signed $mirror $suite main"
done >"$work/sources.list"

# apt-get with lists and caches of its own. Nothing outside $work is read as a source or written.
own_apt() {
    apt-get -qq \
        -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/none" \
        -o Dir::Etc::preferencesparts="$work/none" -o Dir::Etc::preferences="$work/none/preferences" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

say "fetching the package lists of $suite_012 and $suite_13 from this machine's Debian mirror"
own_apt update || die "the Debian mirror of this machine did not give the lists of $suite_012 and $suite_13"

# download PACKAGE[/SUITE]: leaves its .deb in $work/debs and prints the path.
download() {
    (cd "$work/debs" && rm -f "${1%/*}"_*.deb && own_apt download "$1" >/dev/null && ls "$work/debs/${1%/*}"_*.deb)
}

unpack_prosody() { # VERSION SUITE
    tree=$work/prosody-$1
    deb=$(download "prosody/$2") || die "there is no prosody in $2"
    case $(dpkg-deb -f "$deb" Version) in
        "$1".*) ;;
        *) die "$2 has prosody $(dpkg-deb -f "$deb" Version), expected $1" ;;
    esac
    dpkg-deb -x "$deb" "$tree"

    # ICU is what differs between releases of Debian: where this one has another version, the right one comes along.
    # (A package from backports is built with the ICU of the release below, so no suite is named.)
    icu=$(find "$tree/usr/lib/prosody" -name '*.so' -exec ldd {} + 2>/dev/null |
        sed -n 's/.*libicu[a-z0-9]*\.so\.\([0-9]*\) => not found.*/\1/p' | sort -u)
    for version in $icu; do
        library=$(download "libicu$version") || die "there is no libicu$version in $suite_012 and $2"
        dpkg-deb -x "$library" "$tree"
    done

    # The commands carry the paths of an installed Prosody.
    for command in prosody prosodyctl; do
        sed -i "s|^CFG_SOURCEDIR=.*|CFG_SOURCEDIR='$dest/prosody-$1/usr/lib/prosody';|
                s|^CFG_PLUGINDIR=.*|CFG_PLUGINDIR='$dest/prosody-$1/usr/lib/prosody/modules/';|
                s|^CFG_CONFIGDIR=.*|CFG_CONFIGDIR='$dest/prosody-$1/etc/prosody';|" "$tree/usr/bin/$command"
        cat >"$tree/$command" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH="\$(echo '$dest/prosody-$1/usr/lib/'*-linux-gnu*)\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
exec lua5.4 '$dest/prosody-$1/usr/bin/$command' "\$@"
WRAPPER
        chmod 755 "$tree/$command"
    done

    dpkg-deb -f "$deb" Version >"$tree/.complete"
    rm -rf "$dest/prosody-$1"
    mv "$tree" "$dest/prosody-$1"
    say "Prosody $(cat "$dest/prosody-$1/.complete") is in $dest/prosody-$1"
}

ready 0.12 || unpack_prosody 0.12 "$suite_012"
ready 13 || unpack_prosody 13 "$suite_13"
