# Sourced by the scripts beside it: how they speak, and what this machine lets us do.

say() { printf 'celerymeter: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Whether Debian packages can be installed: as root, or with a sudo that asks nothing or has somebody to ask.
can_apt() {
    have apt-get || return 1
    [ "$(id -u)" = 0 ] && return 0
    have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }
}

apt_install() {
    if [ "$(id -u)" = 0 ]; then
        .ci/apt-install "$@"
    else
        sudo --preserve-env=http_proxy,https_proxy,no_proxy .ci/apt-install "$@"
    fi
}
