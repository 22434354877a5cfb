#!/usr/bin/env bash
# Compilers and emulators for tests/products/test_emulation.py, where the machine lets us install them. Without them
# that part is skipped, loudly.
set -euo pipefail
command -v aarch64-linux-gnu-gcc qemu-aarch64 qemu-riscv64 clang-19 ld.lld-19 > /dev/null && exit 0
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
"${root[@]}" apt-get update -qq > /dev/null &&
    "${root[@]}" apt-get install -yqq --no-install-recommends qemu-user clang-19 lld-19 \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross > /dev/null ||
    echo "Cross compilers cannot be installed here: ARM and RISC-V will not be tested" >&2
