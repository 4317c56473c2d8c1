#!/bin/sh
# Installs the Debian packages that are missing, and says so. Elsewhere it names them.
set -eu
missing=
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "please install what Debian calls:$missing" >&2
    exit 1
fi
echo "installing (apt):$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo env DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -q >/dev/null && apt-get install -q -y --no-install-recommends$missing >/dev/null"
