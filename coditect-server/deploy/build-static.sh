#!/bin/sh
# The program, linked with all that it needs, so that an image of it can have nothing else; and the folder of
# its data. The Dockerfile runs this, and so does test-image.sh.
#
#   coditect-server/deploy/build-static.sh FOLDER [flags of cargo]        from the top of the repository
set -eu
into=$1
shift

# Named, or the flag would be for what only runs while it is built, too.
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_DIST_STRIP=symbols \
    cargo build --profile dist --locked -p coditect-server --target "$target" "$@"

mkdir -p "$into/data"
cp "${CARGO_TARGET_DIR:-target}/$target/dist/coditect-server" "$into/coditect-server"
