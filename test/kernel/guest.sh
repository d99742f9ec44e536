# shellcheck shell=bash
# shellcheck disable=SC2154 # root, kernels and time_limit are set by scripts/kernels
# Runs a command in a guest with another kernel (QEMU without KVM, so that it runs everywhere). The guest sees this
# machine's files; what it writes stays in its memory. Sourced by scripts/kernels, behind fetch.sh.
guest_memory_mib=1536

# mount_point_of PATH, and bind_read_only FROM TO.
mount_point_of() { findmnt -n -o TARGET --target "$1" | tail -n 1; }
bind_read_only() { mount --bind "$1" "$2" && mount -o remount,bind,ro "$2"; }

# serve_files SOCKET VIEW: becomes the virtiofs daemon of a guest. In a mount namespace of its own the root is bound at
# VIEW read-only, and the mount that holds this repository where that is another: nothing that the guest does gets out.
serve_files() {
  local own
  bind_read_only / "$2"
  own=$(mount_point_of "$root")
  [ "$own" = / ] || bind_read_only "$own" "$2$own"
  exec /usr/lib/qemu/virtiofsd --socket-path="$1" -o "source=$2" -o cache=always -o sandbox=chroot -o no_posix_lock
}

# make_initramfs FOLDER COMMAND-FILE: on standard output.
make_initramfs() {
  local tree=$guest_work/initramfs
  mkdir -p "$tree"/{bin,proc,sys,dev}
  cp /bin/busybox "$tree/bin/busybox"
  ln -sf busybox "$tree/bin/sh"
  cp -r "$1/modules" "$1/modules.order" "$tree/"
  cp "$root/test/kernel/init" "$tree/init"
  cp "$2" "$tree/command"
  printf 'release=%s\nmodules=%q\n' "$(cat "$1/release")" "$(cat "$1/modules.path")" >"$tree/settings"
  chmod 755 "$tree/init"
  (cd "$tree" && find . | cpio -o -H newc --quiet -R 0:0)
}

# run_in_guest VERSION SECONDS COMMAND: the command (of bash, in the current folder) runs as root; its output is the
# output, its exit status the status; 124 when it took longer, 125 when the guest ended without one.
run_in_guest() (
  local folder=$kernels/$1 seconds=$2 command=$3 status=0 told
  guest_work=$(mktemp -d /tmp/weft-guest.XXXXXX)
  daemon=
  trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true; rm -rf "$guest_work"' EXIT
  mkdir "$guest_work/view"
  printf 'cd %q\n%s\n' "$PWD" "$command" >"$guest_work/command"
  make_initramfs "$folder" "$guest_work/command" >"$guest_work/initramfs.img"
  # The daemon ends with its guest.
  unshare --mount --propagation private "$root/scripts/kernels" serve-files "$guest_work/socket" "$guest_work/view" \
    </dev/null >"$guest_work/daemon.log" 2>&1 &
  daemon=$!
  for _ in $(seq 200); do
    [ ! -S "$guest_work/socket" ] || break
    kill -0 "$daemon" 2>/dev/null || die "virtiofsd: $(cat "$guest_work/daemon.log")"
    sleep 0.02
  done
  timeout --foreground "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$guest_memory_mib" \
    -machine q35,memory-backend=memory \
    -object "memory-backend-memfd,id=memory,size=${guest_memory_mib}M,share=on" \
    -kernel "$folder/vmlinuz" -initrd "$guest_work/initramfs.img" \
    -append 'console=ttyS0 quiet panic=-1 nokaslr mitigations=off random.trust_cpu=on' \
    -nodefaults -display none -no-reboot -serial "file:$folder/console.log" \
    -chardev "socket,id=files,path=$guest_work/socket" -device vhost-user-fs-pci,chardev=files,tag=machine \
    -device virtio-serial-pci -chardev stdio,id=output,signal=off -device virtconsole,chardev=output \
    </dev/null 2>"$guest_work/qemu.log" || status=$?
  if [ "$status" = 124 ]; then
    warn "kernel $1: not done after $seconds s, stopped"
    exit 124
  fi
  told=$(sed -nE 's/.*weft-guest: exit status ([0-9]+).*/\1/p' "$folder/console.log" | tail -n 1)
  [ -z "$told" ] || exit "$told"
  warn "kernel $1: the guest ended by itself (QEMU: $status $(cat "$guest_work/qemu.log")); its console:"
  tail -n 20 "$folder/console.log" >&2
  exit 125
)
