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

# .venv's uv, with pip's settings where it has the same: index and certificate (proxies are in the environment for both).
venv_uv() {
    index=${PIP_INDEX_URL:-$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)}
    cert=${PIP_CERT:-${SSL_CERT_FILE:-}}
    env ${index:+UV_DEFAULT_INDEX="$index"} ${cert:+SSL_CERT_FILE="$cert"} .venv/bin/uv "$@"
}

pip_install() { .venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check "$@"; }

# usage: install_lock LOCK ARG…      into .venv, or where ARG… say
# uv takes seconds where pip takes half a minute. Where it fails, for example with a setting that only pip knows, pip installs.
install_lock() {
    log=$(mktemp)
    if ! venv_uv pip install --quiet --compile-bytecode --python .venv --require-hashes --requirement "$@" 2>"$log"; then
        say "uv cannot install $1 ($(head -n 1 "$log")): trying with pip"
        pip_install --require-hashes --requirement "$@"
    fi
    rm -f "$log"
}
