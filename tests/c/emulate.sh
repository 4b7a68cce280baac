#!/usr/bin/env bash
# emulate.sh PROGRAM ARGS...: runs a static x86-64 program under Linux on a CPU with AVX-512 and its VNNI, which bochs
# emulates. As root on Debian: bochs bochs-term bochsbios vgabios cpio isolinux syslinux-common xorriso, and a kernel from apt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir -p root/dev iso
newest() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }'; }
kernel=$(newest)
[ -n "$kernel" ] || { apt-get update -qq && kernel=$(newest); }
apt-get download -qq -o APT::Sandbox::User=root "$kernel"
dpkg -x "$kernel"*.deb unpacked
cp unpacked/boot/vmlinuz-* iso/linux
gcc -O2 -static "$here/init.c" -o root/init
cp "$program" root/program
mknod root/dev/console c 5 1
(cd root && find . | cpio -o -H newc --quiet) >iso/initrd
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 iso
# Bochs 2.7 gives protection keys a state of no bytes, which would cost Linux all of AVX; with one of the others that are
# cleared here, Linux does not start. What the kernels need is not among them.
clear=pku,xsavec,xsaves,fsrm,rdpid,gfni,vaes,vpclmulqdq,sha_ni,umip,la57,erms
cat >iso/isolinux.cfg <<C
default l
prompt 0
label l
kernel linux
append initrd=initrd console=ttyS0,115200 quiet loglevel=0 clearcpuid=$clear nopku mitigations=off random.trust_cpu=on -- $*
C
xorriso -as mkisofs -quiet -o boot.iso -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table iso 2>/dev/null
# Time in the machine is counted in instructions: 1e8 are a second.
cat >bochsrc <<C
config_interface: textconfig
display_library: term
cpu: model=corei7_icelake_u, ips=100000000, reset_on_triple_fault=0
megs: 512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial
log: log
panic: action=fatal
error: action=ignore
debug: action=ignore
info: action=ignore
clock: sync=none
speaker: enabled=0, mode=none
sound: waveoutdrv=dummy
C
echo c >go # Debian's bochs is built with its debugger, which waits for a command
TERM=vt100 timeout -s KILL "${LIMIT:-600}" bochs -rc go -f bochsrc >screen 2>&1 </dev/null || true
tr -d '\r' <serial | sed '/^==exit /d'
status=$(tr -d '\r' <serial | sed -n 's/^==exit //p')
[ -n "$status" ] || { echo "emulate.sh: the machine has not ended by itself" >&2; exit 99; }
exit "$status"
