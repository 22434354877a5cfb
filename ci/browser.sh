#!/usr/bin/env bash
# Chromium for ci/check_site.py, where the machine lets us install it. Without it that part is skipped, loudly.
set -euo pipefail
command -v chromium > /dev/null && exit 0
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && apt-get install -yqq --no-install-recommends chromium fonts-dejavu-core > /dev/null
elif command -v apt-get > /dev/null && sudo -n true 2> /dev/null; then
    sudo apt-get update -qq && sudo apt-get install -yqq --no-install-recommends chromium fonts-dejavu-core > /dev/null
else
    echo "no Chromium and no way to install it: the built site will not be walked" >&2
fi
