#!/bin/sh
# Builds the statically linked program and an empty data directory for the image. Used by the
# Dockerfile and test-image.sh.
#
#   coditect-server/deploy/build-static.sh FOLDER [cargo flags]    # from the root of the repository
set -eu
into=$1
shift

# With an explicit target, RUSTFLAGS do not apply to build scripts and macros.
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_DIST_STRIP=symbols \
    cargo build --profile dist --locked -p coditect-server --target "$target" "$@"

mkdir -p "$into/data"
cp "${CARGO_TARGET_DIR:-target}/$target/dist/coditect-server" "$into/coditect-server"
