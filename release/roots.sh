#!/bin/sh
# Debian's CPythons, unpacked and never installed: `release/roots.sh FOLDER SUITE...`. Their programs run through the loader
# of the root, or through qemu-user. A frozen mirror may serve an index past its date; its signature is checked all the same.
set -eu
folder=$1; shift
keys=/usr/share/keyrings/debian-archive-keyring.gpg
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing (Debian: mmdebstrap, qemu-user-static)" >&2; exit 1; }
mkdir -p "$folder"
unpack() {  # architecture suite root
  [ -e "$3/.complete" ] && return
  rm -rf "$3"
  mmdebstrap --quiet --variant=extract --architectures="$1" --include=python3,debian-archive-keyring,musl --keyring="$keys" \
    --aptopt='Acquire::Check-Valid-Until "false"' "$2" "$3"
  # What the maintainers' scripts would link.
  [ -e "$3/lib" ] || ln -s usr/lib "$3/lib"
  touch "$3/.complete"
}
for suite in "$@"; do
  unpack amd64 "$suite" "$folder/x86_64-glibc-$suite"
  # The keys of a later release come with that release.
  newer=$folder/x86_64-glibc-$suite/usr/share/keyrings/debian-archive-keyring.pgp
  [ -e "$newer" ] && keys=$(realpath "$newer")
  unpack arm64 "$suite" "$folder/aarch64-glibc-$suite"
done
