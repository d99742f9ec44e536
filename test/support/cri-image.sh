# shellcheck shell=bash
# The images of scripts/cri, made of this machine's programs without a registry and without a builder: an OCI layout of
# three images that share one layer. Sourced by scripts/cri.

# add_blob FILE: puts it into the layout; prints its descriptor's digest and size.
add_blob() {
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$layout/blobs/sha256/$digest"
  jq -nc --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$layout/blobs/sha256/$digest")" '{$digest, $size}'
}

# json_list TEXT...: a list of strings.
json_list() { printf '%s\n' "$@" | jq -Rnc '[inputs]'; }

# add_image REFERENCE ENTRYPOINT...: prints the image's entry for the layout's index.
add_image() {
  local reference=$1 work=$layout/work architecture
  shift
  architecture=$(dpkg --print-architecture)
  jq -nc --arg architecture "$architecture" --argjson layer "$layer" --argjson entrypoint "$(json_list "$@")" '
      {$architecture, os: "linux", created: "1970-01-01T00:00:00Z", config: {Env: ["PATH=/bin"], Entrypoint: $entrypoint},
       rootfs: {type: "layers", diff_ids: [$layer.digest]}}' >"$work"
  jq -nc --argjson config "$(add_blob "$work")" --argjson layer "$layer" '{schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: ({mediaType: "application/vnd.oci.image.config.v1+json"} + $config),
      layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar"} + $layer]}' >"$work.manifest"
  jq -nc --arg reference "$reference" --arg architecture "$architecture" --argjson blob "$(add_blob "$work.manifest")" '
      {mediaType: "application/vnd.oci.image.manifest.v1+json"} + $blob + {platform: {$architecture, os: "linux"},
       annotations: {"io.containerd.image.name": $reference}}'
}

# make_rootfs FOLDER TESTAPP: busybox with its applets, and the test application with its libraries.
make_rootfs() {
  local folder=$1 applet library
  mkdir -p "$folder"/{bin,etc,tmp,www}
  cp "$(command -v busybox)" "$folder/bin/busybox"
  for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$folder/bin/$applet"
  done
  cp "$2" "$folder/bin/weft-testapp"
  for library in $(ldd "$2" | sed -nE 's/.*=> (\/[^ ]+).*/\1/p; s/^[[:space:]]*(\/[^ ]+).*/\1/p'); do
    cp -L --parents "$library" "$folder"
  done
  echo 'root:x:0:0:root:/:/bin/sh' >"$folder/etc/passwd"
  echo 'hosts: files' >"$folder/etc/nsswitch.conf" # without it busybox resolves no name, not even an address
  echo 'a page' >"$folder/www/index.html"
}

# make_images OUT TESTAPP: the images localhost/weft-cri:pause, :web (a server on port 80, what critest asks for) and
# :pod, whose command each container chooses.
make_images() {
  local out=$1 layout layer
  layout=$(mktemp -d)
  mkdir -p "$layout/blobs/sha256"
  make_rootfs "$layout/rootfs" "$2"
  tar -C "$layout/rootfs" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$layout/layer" .
  layer=$(add_blob "$layout/layer")
  {
    add_image localhost/weft-cri:pause /bin/busybox sleep infinity
    add_image localhost/weft-cri:web /bin/busybox httpd -f -p 80 -h /www
    add_image localhost/weft-cri:pod /bin/sh
  } | jq -sc '{schemaVersion: 2, manifests: .}' >"$layout/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  tar -C "$layout" -cf "$out" oci-layout index.json blobs
  rm -rf "$layout"
}
