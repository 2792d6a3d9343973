# What the sessions share, sourced by each of them: the project's root, a folder that is deleted at the end, environments.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LLM_BLENDER_STORE="$work/blend.db"

say() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

# environment DIRECTORY ARGUMENT...: a virtual environment with what the arguments name. uv takes seconds where pip takes
# a minute, and finds the wheels and the certificates that pip is set up with: a CPU build of torch, say.
environment() {
  local directory=$1
  shift
  [ -d "$directory" ] || python3 -m venv --without-pip "$directory"
  uv pip install --quiet --python "$directory" "$@"
}

if ! command -v uv > /dev/null; then
  python3 -m venv "$work/uv"
  "$work/uv/bin/pip" install --quiet uv
  export PATH="$PATH:$work/uv/bin"
fi
pip_setting() { python3 -m pip config get "global.$1" 2> /dev/null || true; }
export UV_FIND_LINKS="${UV_FIND_LINKS-${PIP_FIND_LINKS-$(pip_setting find-links)}}"
export SSL_CERT_FILE="${SSL_CERT_FILE:-${PIP_CERT:-$(pip_setting cert)}}"
[ -n "$SSL_CERT_FILE" ] || unset SSL_CERT_FILE
