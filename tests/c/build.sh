#!/usr/bin/env bash
# Builds csrc with the conformance program, without Python, and runs it:
#
#   build.sh native     as released: -O3 -DNDEBUG
#   build.sh asan       asserts, addresses, undefined behaviour
#   build.sh tsan       races in the thread pool
#   build.sh qemu       the native program on an emulated CPU with AVX2 and without AVX-512
#   build.sh clang      as native, by clang
#   build.sh aarch64    cross-built, on an emulated 64-bit ARM
#
# More arguments go to the program (--quick). The build is left in $OUT, by default a temporary folder.
set -euo pipefail

kind=${1:?native, asan, tsan, qemu, clang or aarch64}
shift
here=$(cd "$(dirname "$0")" && pwd)
csrc=$here/../../csrc
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"
program=$out/conformance-$kind

build() { # compiler, flags: the project's own and those of this kind
    "$@" -std=gnu11 -ffp-contract=off -Wall -Wextra -Werror -I"$csrc" "$csrc"/*.c "$csrc"/*/*.c "$here/conformance.c" -o "$program" -lm -pthread
}

release="-O3 -DNDEBUG"
case $kind in
native)
    build gcc $release
    "$program" "$@"
    ;;
asan)
    build gcc -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
    "$program" "$@"
    ;;
tsan)
    build gcc -O1 -g $release -fsanitize=thread
    TSAN_OPTIONS=halt_on_error=1 "$program" "$@"
    ;;
qemu)
    build gcc $release
    qemu-x86_64 -cpu max "$program" --need=avx2 "$@"
    ;;
clang)
    build clang $release
    "$program" "$@"
    ;;
aarch64)
    build aarch64-linux-gnu-gcc $release -static
    qemu-aarch64 "$program" "$@"
    ;;
*)
    echo "build.sh: no kind $kind" >&2
    exit 2
    ;;
esac
