# shellcheck shell=bash
# shellcheck disable=SC2154 # root, kernels and time_limit are set by scripts/kernels
# Gets Debian's cloud kernels, each into a folder of its own below $kernels, without installing anything: packages come
# from the repositories that this machine's apt uses, in more of their suites, by lists that apt keeps apart. Sourced by
# scripts/kernels, behind scripts/lib.sh.
#
# $kernels/VERSION/ holds root/ (the unpacked packages), modules/ and modules.order (what the guest needs before it sees
# this machine's files), vmlinuz and release. It is complete when release is there.

# The suites that have the versions which are tested. Those of the security repository get the newest builds first.
archive_suites='bookworm-backports trixie-backports'
security_suites='bullseye-security bookworm-security trixie-security'
# Modules of the guest's way to this machine's files and to its output.
guest_modules='virtio_pci virtio_console virtiofs overlay'

# repositories: "URI SUITE" of everything that apt knows, whichever way its sources are written.
repositories() {
  # shellcheck disable=SC2016 # apt's own words
  apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | sort -u
}

# write_sources FILE: the suites above, in the repositories of this machine's own suites.
write_sources() {
  local own keyring=/usr/share/keyrings/debian-archive-keyring.gpg archive security suite
  own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  archive=$(repositories | awk -v suite="$own" '$2 == suite {print $1; exit}')
  [ -n "$archive" ] || die "apt has no repository of Debian's suite \"$own\": kernels cannot be looked for"
  security=$(repositories | awk -v suite="$own-security" '$2 == suite {print $1; exit}')
  # Without an entry of its own: where mirrors have it, beside the archive.
  [ -n "$security" ] || security=${archive%/}-security/
  [ -r "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"
  for suite in $archive_suites; do echo "deb [arch=amd64 signed-by=$keyring] $archive $suite main"; done >"$1"
  for suite in $security_suites; do echo "deb [arch=amd64 signed-by=$keyring] $security $suite main"; done >>"$1"
}

# private_apt COMMAND...: apt-get or apt-cache with lists and caches of our own; proxies and the like stay the machine's.
private_apt() {
  local state=$kernels/apt command=$1
  shift
  "$command" -q -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State::Lists="$state/lists" \
    -o Dir::Cache="$state/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

# refresh_lists: at most once in a run. A suite that is gone costs only its own versions.
refresh_lists() {
  [ -z "${lists_are_fresh:-}" ] || return 0
  local state=$kernels/apt
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
  write_sources "$state/sources.list"
  private_apt apt-get update >"$state/update.log" 2>&1 || true # told where a kernel is missed
  lists_are_fresh=1
}

# newest_image VERSION: the name of the newest image package of a version such as 6.1, or of all for "newest".
newest_image() {
  local version=${1//./\\.}
  [ "$version" != newest ] || version='[0-9]+\.[0-9]+'
  private_apt apt-cache search --names-only '^linux-image-[0-9].*-cloud-amd64$' | cut -d' ' -f1 |
    grep -E "^linux-image-$version(\\.|\\+|~|-)" | sort -V | tail -n 1
}

# parts_of IMAGE: the packages with its files: itself, and where packaging splits it those of the same build below it.
parts_of() {
  local build=${1#linux-image-}
  echo "$1"
  private_apt apt-cache depends "$1" | sed -nE "s/^ *(Pre)?Depends: (linux-[a-z]+-${build//+/\\+})\$/\2/p"
}

# collect_modules FOLDER RELEASE: depmod, and the guest's first modules unpacked, with the order in which they are loaded.
collect_modules() {
  local folder=$1 base=$1/root release=$2 module file name
  [ ! -d "$base/usr/lib/modules/$release" ] || base+=/usr
  depmod -b "$base" "$release"
  mkdir -p "$folder/modules"
  for module in $guest_modules; do
    modprobe -d "$base" -S "$release" --show-depends "$module" 2>/dev/null || true # built in: nothing to load
  done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
    name=$(basename "$file") && name=${name%.xz} && name=${name%.zst}
    case $file in
      *.xz) xz -dc "$file" ;;
      *.zst) zstd -qdc "$file" ;;
      *) cat "$file" ;;
    esac >"$folder/modules/$name"
    echo "$name"
  done >"$folder/modules.order"
  [ -s "$folder/modules.order" ] || die "kernel $release: its packages have none of the modules $guest_modules"
  echo "$base/lib/modules/$release" >"$folder/modules.path"
}

# fetch_kernel VERSION: fetches and unpacks it, unless it is there already. False, with a text, when it cannot be had.
fetch_kernel() {
  local version=$1 folder=$kernels/$1 image part
  [ ! -e "$folder/release" ] || return 0
  refresh_lists
  image=$(newest_image "$version")
  [ -n "$image" ] || {
    warn "kernel $version: no suite has linux-image-$version…-cloud-amd64 (looked in $archive_suites $security_suites)"
    grep -E '^[EW]:' "$kernels/apt/update.log" >&2 || true # apt-get says so when it cannot get a list, and ends well
    return 1
  }
  rm -rf "$folder" && mkdir -p "$folder/packages" "$folder/root"
  parts_of "$image" >"$folder/parts"
  # shellcheck disable=SC2046 # a package a word
  (cd "$folder/packages" && private_apt apt-get download $(cat "$folder/parts")) >"$folder/download.log" 2>&1 || {
    warn "kernel $version: cannot download $(xargs <"$folder/parts"): $(grep '^E:' "$folder/download.log")"
    return 1
  }
  for part in "$folder"/packages/*.deb; do dpkg-deb -x "$part" "$folder/root"; done
  rm -r "$folder/packages"
  local release
  release=$(find "$folder/root" -path '*/lib/modules/*' -name kernel -type d | head -n 1 | xargs -r dirname | xargs -r basename)
  [ -n "$release" ] || die "kernel $version: no modules in $(xargs <"$folder/parts")"
  collect_modules "$folder" "$release"
  cp "$(find "$folder/root" -name 'vmlinuz*' -type f | head -n 1)" "$folder/vmlinuz"
  echo "$release" >"$folder/release"
  say "kernel $version: $release"
}

# hook_of VERSION: how this kernel attaches TC programs by preference: tcx since 6.6, clsact before.
hook_of() {
  local release
  release=$(cat "$kernels/$1/release")
  if printf '6.6\n%s\n' "$release" | sort -CV; then echo tcx; else echo clsact; fi
}
