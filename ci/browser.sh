#!/usr/bin/env bash
# Chromium for ci/check_site.py, where the machine lets us install it. Without it that part is skipped, loudly.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    command -v "$name" > /dev/null && exit 0
done
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
"${root[@]}" apt-get update -qq > /dev/null &&
    "${root[@]}" apt-get install -yqq --no-install-recommends chromium fonts-dejavu-core > /dev/null ||
    echo "Chromium cannot be installed here: the built site will not be walked" >&2
