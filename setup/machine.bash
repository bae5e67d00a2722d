# shellcheck shell=bash
# Sets this machine up: Debian packages, then .venv from a lock file. Sourced by ./ocgate and
# ./test, which set `root` (the checkout) before. Everything here is repeatable: a step that was
# killed at any point is found unfinished by the next start and done again, because the stamp that
# says "done" is removed before the first change and written after the last one.
#
#   .venv/.set-up.run   stamp of the runtime lock      .setup/lock         one set-up at a time
#   .venv/.set-up.dev   stamp of the dev lock, which   .setup/install.log  what apt and pip said
#                       only adds to the runtime's

: "${root:?}"

# Raise when .venv's layout changes without a change of the lock files.
SET_UP_FORMAT=1
# Debian's interpreter, also where pyenv or conda comes first on PATH: .venv outlives the shell
# that made it, and s6 starts services without that PATH.
PYTHON=/usr/bin/python3
POLICY=/usr/sbin/policy-rc.d

say() { printf 'ocgate: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# stamp_of LOCK: what .venv depends on. Two processes, together about 3 ms.
stamp_of() {
    local python sum
    python=$(readlink -f -- "$PYTHON") || python=none
    sum=$(sha256sum <"$1")
    printf '%s %s %s %s' "$SET_UP_FORMAT" "$python" "$HOSTTYPE" "${sum%% *}"
}

# missing_packages FILE...: sets `missing` to the packages whose file isn't there. No process.
missing_packages() {
    local list package proof found
    missing=()
    for list; do
        while read -r package proof _; do
            [[ $package && $package != '#'* ]] || continue
            # A glob that matches nothing stays as it is, and doesn't exist.
            # shellcheck disable=SC2206
            found=($proof)
            [[ -e ${found[0]} ]] || missing+=("$package")
        done <"$list"
    done
}

# has_stamp KIND LOCK: true when .venv was finished from this lock by this interpreter.
has_stamp() {
    local stamp=$root/.venv/.set-up.$1
    [[ -r $stamp && "$(<"$stamp")" == "$(stamp_of "$2")" ]]
}

# is_set_up KIND LOCK LISTS...: true when nothing is to be done. KIND is run or dev.
is_set_up() {
    has_stamp "$1" "$2" || return 1
    shift 2
    missing_packages "$@"
    ((${#missing[@]} == 0))
}

# set_up KIND LOCK LISTS...: all steps, under the lock. Ends the program on failure.
set_up() {
    local kind=$1 lock=$2 missing=() started=$SECONDS
    umask 022
    if ! { mkdir -p -- "$root/.setup" && exec 9>"$root/.setup/lock"; } 2>/dev/null; then
        die "can't write to $root/.setup, where the set-up keeps its log. Run as its owner or root."
    fi
    # Children keep fd 9 on purpose: after a kill -9 of this shell an orphaned apt or pip still
    # holds the lock, and the next start waits for it instead of pulling .venv away below it.
    if ! flock --nonblock 9; then
        say "another set-up is running; waiting for it"
        flock 9
    fi
    if ! is_set_up "$@"; then
        log=$root/.setup/install.log
        : >"$log" || die "can't write $log (disk full?)"
        trap 'echo >&2; say "set-up interrupted; the next start finishes it"; exit 130' INT TERM HUP
        trap 'allow_services' EXIT
        shift 2
        install_packages "$@"
        make_venv "$kind" "$lock"
        trap - INT TERM HUP EXIT
        say "set up in $((SECONDS - started)) s; this machine needs no network for it any more"
    fi
    exec 9>&-
}

# step TEXT COMMAND...: one line for a person, the command's words to the log, shown when it fails.
step() {
    local text=$1 started=$SECONDS before
    shift
    printf 'ocgate: %s …' "$text" >&2
    before=$(stat -c %s -- "$log")
    printf '\n$ %s\n' "$*" >>"$log"
    # A subshell, so that a trap of this shell speaks to the person and not into the log.
    if ("$@") >>"$log" 2>&1 </dev/null; then
        printf ' %d s\n' $((SECONDS - started)) >&2
        return 0
    fi
    printf ' FAILED\n' >&2
    tail -c "+$((before + 1))" -- "$log" | tail -n 25 | sed 's/^/    /' >&2
    say "the whole log is $log"
    return 1
}

# --- Debian packages -----------------------------------------------------------------------------

install_packages() {
    missing_packages "$@"
    local names="${missing[*]}"
    if [[ -z $names ]] && ! dpkg_was_interrupted; then
        printf 'ocgate: [1/3] Debian packages: all there\n' >&2
        return 0
    fi
    [[ -z $names ]] || check_distribution "$names"
    ((EUID == 0)) || die "Debian packages are missing: $names. Installing them needs root: run
    sudo $(printf %q "$root/ocgate") …    or    sudo apt-get install $names"
    forbid_services
    repair_dpkg
    # A machine may have a broken third-party source; what counts is whether the install works.
    [[ ${package_lists_read:-} ]] || step "[1/3] reading the package lists" apt_get update ||
        say "going on with the package lists that are there"
    package_lists_read=yes
    step "[1/3] installing Debian packages: $names" apt_get install -y --no-install-recommends \
        --fix-broken --no-upgrade -- "${missing[@]}" ||
        die "installing Debian packages did not work (above).
    Is the network there, and space on the disk? The next start tries again."
    allow_services
    missing_packages "$@"
    ((${#missing[@]} == 0)) || die "installed, but what they should bring is not there: ${missing[*]}"
}

# A fresh cloud machine is often still in its own first upgrade: 600 s is longer than that takes.
apt_get() {
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C apt-get -q \
        -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confold "$@"
}

# A killed dpkg leaves a journal in updates/, or packages that are unpacked and not configured;
# their files may all be there. Only root can do something about it.
dpkg_was_interrupted() {
    local journal=(/var/lib/dpkg/updates/[0-9]*)
    ((EUID == 0)) && command -v dpkg >/dev/null || return 1
    [[ -e ${journal[0]} || -n $(dpkg --audit 2>&1) ]]
}

repair_dpkg() {
    dpkg_was_interrupted || return 0
    DEBIAN_FRONTEND=noninteractive step "[1/3] finishing an interrupted installation" \
        dpkg --force-confold --configure -a || true # what is still wrong is apt-get's, below
}

check_distribution() {
    local ID='' VERSION_ID='' VERSION_CODENAME='' PRETTY_NAME='an unknown system' tested=' 12 13 forky '
    # shellcheck source=/dev/null
    [[ ! -r /etc/os-release ]] || . /etc/os-release
    if ! command -v apt-get >/dev/null; then
        die "$PRETTY_NAME has no apt-get. Tested are Debian 12, 13 and testing; elsewhere install what
    provides these by hand and start again, or use a container: $1"
    fi
    # Testing has no number.
    [[ $ID == debian && $tested == *" ${VERSION_ID:-${VERSION_CODENAME:-none}} "* ]] ||
        say "$PRETTY_NAME is untested (tested: Debian 12, 13 and testing); trying"
}

# The ocserv package enables and starts a server of its own, with Debian's sample configuration on
# port 443. Where we are who installs it, that server is neither started (policy-rc.d, Debian Policy
# 9.3.3.2 and deb-systemd-invoke(1)) nor left enabled for the next boot; who wants it can enable it.
# A policy-rc.d that is there is moved aside, asked for all other services, and put back.
forbid_services() {
    allow_services # puts back what a killed set-up left
    # Unpacked and not configured counts as well: configuring is what starts it.
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' ocserv 2>&1) != installed ]] || return 0
    : >"$root/.setup/ocserv-by-us"
    if [[ -e $POLICY || -L $POLICY ]]; then
        mv -- "$POLICY" "$POLICY.before-ocgate"
    fi
    cat >"$POLICY" <<'POLICY_END'
#!/bin/sh
# ocgate's set-up, for the time of one apt-get: the ocserv package must not start its own server.
case " $* " in *" ocserv "* | *" ocserv.service "*) exit 101 ;; esac
[ ! -x "$0.before-ocgate" ] || exec "$0.before-ocgate" "$@"
exit 0
POLICY_END
    chmod 755 -- "$POLICY"
}

# Undoes forbid_services, also after a kill in the middle of it; repeatable.
allow_services() {
    if [[ -f $POLICY ]] && grep -q "^# ocgate's set-up" "$POLICY"; then
        rm -f -- "$POLICY"
    fi
    if [[ -e $POLICY.before-ocgate || -L $POLICY.before-ocgate ]]; then
        mv -- "$POLICY.before-ocgate" "$POLICY"
    fi
    [[ -e $root/.setup/ocserv-by-us ]] || return 0
    if [[ -e /usr/sbin/ocserv ]]; then
        # What `systemctl disable` does, and possible where systemd isn't running or not there yet.
        rm -f -- /etc/systemd/system/*.wants/ocserv.service
        update-rc.d ocserv disable >>"${log:-/dev/null}" 2>&1 || true # no init, nothing to disable
    fi
    rm -f -- "$root/.setup/ocserv-by-us"
}

# --- Python packages -----------------------------------------------------------------------------

# make_venv KIND LOCK: .venv with exactly the lock's packages and ocgate from src/.
make_venv() {
    local kind=$1 lock=$2 venv=$root/.venv stamp
    ! has_stamp "$kind" "$lock" || return 0
    stamp=$(stamp_of "$lock")
    "$PYTHON" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is $("$PYTHON" -V 2>&1); ocgate needs Python 3.11 or newer (Debian 12 and later)"

    # A finished .venv of this interpreter is brought up to date in place: a serving ocgate that
    # runs from it keeps its modules. Any other one may be half made, and goes.
    [[ -r $venv/.set-up.run && "$(<"$venv/.set-up.run")" == "${stamp% *} "* ]] ||
        rm -rf -- "$venv"
    rm -f -- "$venv/.set-up.dev"
    [[ $kind == dev ]] || rm -f -- "$venv/.set-up.run"
    if [[ -d $venv ]]; then
        say "[2/3] .venv is there; bringing it up to date"
    else
        step "[2/3] making .venv with $(readlink -f -- "$PYTHON")" "$PYTHON" -I -m venv "$venv" ||
            die "making $venv did not work (above). Is there space on the disk?"
    fi
    step "[3/3] installing Python packages from ${lock##*/}" pip_install "$lock" ||
        die "installing Python packages did not work (above). Is the network there (a proxy goes
    into pip's configuration), and space on the disk? The next start tries again."
    link_ocgate "$venv" || die "can't write to $venv (disk full?)"
    if ! { printf '%s' "$stamp" >"$venv/.set-up.$kind.new" &&
        mv -- "$venv/.set-up.$kind.new" "$venv/.set-up.$kind"; }; then
        die "can't write to $venv (disk full?)"
    fi
}

# pip's configuration (index, proxy, certificates) is the machine's; what would send packages
# somewhere else than into .venv is not.
pip_install() {
    env -u PIP_USER -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT "$root/.venv/bin/python" -I -m pip \
        install --no-user --no-input --disable-pip-version-check --root-user-action=ignore \
        --progress-bar off --require-hashes --only-binary :all: -r "$1"
}

# ocgate itself isn't built: .venv finds src/ by a path file, relative so that the checkout can be
# moved. Nothing to download, nothing to go stale, and an edit in src/ counts at once.
link_ocgate() {
    local venv=$1 site
    site=$(echo "$venv"/lib/python3.*/site-packages)
    printf '../../../../src\n' >"$site/ocgate.pth" || return 1
    # sh runs line 2 and never comes further; Python sees a string there. A plain #! line allows
    # no space in the path. -I: nothing from the caller's directory or PYTHONPATH is imported.
    cat >"$venv/bin/ocgate" <<'ENTRY_END' || return 1
#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" -I "$0" "$@"
' '''
import sys

from ocgate.__main__ import main

sys.exit(main())
ENTRY_END
    chmod 755 -- "$venv/bin/ocgate"
    # So that a start needs no writable __pycache__ to be quick.
    "$venv/bin/python" -I -m compileall -q "$root/src" >>"$log" 2>&1 || true
}
