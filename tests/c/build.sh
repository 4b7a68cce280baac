#!/usr/bin/env bash
# Builds csrc with the conformance program, without Python, and runs it:
#
#   build.sh native     as released
#   build.sh asan       asserts, addresses, undefined behaviour
#   build.sh tsan       races in the thread pool
#   build.sh qemu       the native program on an emulated CPU with AVX2 and without AVX-512
#   build.sh clang      as native, by clang
#   build.sh emulate    the lines that the host lacks, on an emulated CPU with AVX-512 and VNNI; nothing to do where it has them
#   build.sh aarch64    cross-built, on an emulated 64-bit ARM
#
# More arguments go to the program (--quick, --op=spmm_csr). The build is left in $OUT, by default a temporary folder, where qemu takes
# what native has left.
set -euo pipefail

kind=${1:?native, asan, tsan, qemu, clang, emulate or aarch64}
shift
here=$(cd "$(dirname "$0")" && pwd)
csrc=$here/../../csrc
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"
program=$out/conformance-$kind

flags=$(sed -n '/^FLAGS = \[/,/\]/p' "$csrc/build_cffi.py" | sed 's/^FLAGS = \[//; s/\].*//' | tr -d '",\n') # what the extension is built with
[ -n "$flags" ] || { echo "build.sh: no FLAGS in build_cffi.py" >&2; exit 1; }

own=$here/conformance.c
build() { # compiler, further flags
    "$1" $flags "${@:2}" -Wall -Wextra -Wmissing-prototypes -Werror -I"$csrc" "$csrc"/*.c "$csrc"/*/*.c "$own" -o "$program" -lm -pthread
}

case $kind in
native)
    build gcc -DNDEBUG
    "$program" "$@"
    ;;
asan)
    own=$program.o # the program's own loops, watched, would be a third of the time
    gcc $flags -Wall -Wextra -Werror -I"$csrc" -c "$here/conformance.c" -o "$own"
    build gcc -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all
    "$program" "$@"
    ;;
tsan)
    build gcc -O1 -DNDEBUG -g1 -fsanitize=thread
    TSAN_OPTIONS=halt_on_error=1 "$program" "$@"
    ;;
qemu)
    program=$out/conformance-native
    [ -x "$program" ] || build gcc -DNDEBUG
    qemu-x86_64 -cpu max "$program" --need=avx2 --emulated "$@"
    ;;
clang)
    build clang -DNDEBUG
    "$program" "$@"
    ;;
emulate)
    build gcc -DNDEBUG -static
    if grep -qw avx512_vnni /proc/cpuinfo; then
        echo "this CPU has AVX-512 and VNNI: build.sh native tests them"
    else
        "$here/emulate.sh" "$program" --emulated --small --need=avx512vnni --from=avxvnni_evex "$@"
    fi
    ;;
aarch64)
    build aarch64-linux-gnu-gcc -DNDEBUG -static
    qemu-aarch64 "$program" --need=i8mm --emulated "$@"
    ;;
*)
    echo "build.sh: no kind $kind" >&2
    exit 2
    ;;
esac
