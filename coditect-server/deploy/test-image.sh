#!/usr/bin/env bash
# Builds the image and runs it like a cluster does: as its user, without capabilities, on a
# read-only root file system with a directory at /data. Needs root, buildah of Debian, python3 and
# curl, but no container engine and no network.
#
# The first stage of the Dockerfile needs an image from a registry; in its place, build-static.sh,
# the command of that stage, runs on this machine. The last stage is that of the Dockerfile.
#
#   coditect-server/deploy/test-image.sh [cargo flags]
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
built=$PWD/target/image-test
server=
image() {
    buildah --root "$work/images" --runroot "$work/run" --storage-driver vfs "$@"
}
finish() {
    [ -z "$server" ] || kill -KILL "$server" 2> /dev/null || true
    image rm --all > /dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT
fail() {
    echo "FAILED: $*" >&2
    cat "$work"/log* >&2 2> /dev/null || true
    exit 1
}
# Retries a command until it succeeds, for up to half a minute.
until_true() {
    for _ in $(seq 150); do
        ! "$@" > /dev/null 2>&1 || return 0
        sleep 0.2
    done
    return 1
}

# --- first stage: the build context, and the command run on it
rm -rf "$built"
mkdir -p "$built"
printf 'FROM scratch\nCOPY . /src\n' > "$work/Dockerfile"
image build --quiet --isolation chroot --ignorefile coditect-server/deploy/Dockerfile.dockerignore \
    --file "$work/Dockerfile" --tag context . > /dev/null
cp -a "$(image mount "$(image from context)")/src" "$built/src"
[ ! -e "$built/src/target" ] && [ ! -e "$built/src/.git" ] ||
    fail "the context has files that are no source"
(
    export CARGO_TARGET_DIR=$PWD/target
    cd "$built/src"
    coditect-server/deploy/build-static.sh "$built/image" "$@"
)

# --- last stage
image build --quiet --isolation chroot --format docker --build-context "build=$built" \
    --file coditect-server/deploy/Dockerfile --tag coditect-server . > /dev/null
container=$(image from coditect-server)
root=$(image mount "$container")

# --- metadata of the image
image inspect --type image coditect-server > "$work/image.json"
said() {
    python3 - "$work/image.json" "$@" <<'PY'
import json, sys

config = json.load(open(sys.argv[1]))["Docker"]["config"]
found = config[sys.argv[2]]
print("\n".join(found if isinstance(found, (list, dict)) else [str(found)]))
PY
}
expect() {
    [ "$(said "$1")" = "$2" ] || fail "the image has $1 $(said "$1"), and not $2"
}
expect User 65532:65532
expect Entrypoint /coditect-server
expect StopSignal SIGTERM
expect ExposedPorts 8080/tcp
expect Volumes /data
mapfile -t check < <(python3 -c '
import json, sys
image = json.load(open(sys.argv[1]))["Docker"]
for word in image["config"]["Healthcheck"]["Test"]: print(word)' "$work/image.json")
[ "${check[*]}" = "CMD /coditect-server health" ] ||
    fail "the image has the health check ${check[*]}"

# --- content: the program, and a directory owned by its user
there=$(cd "$root" && find . -mindepth 1 ! -path './proc*' ! -path './sys*' ! -path './dev*' \
    -printf '%P %U\n' | sort)
[ "$there" = $'coditect-server 0\ndata 65532' ] || fail "the image has in it: $there"

# --- run it with the devices and /proc of every container
mkdir "$root/dev" "$root/proc"
touch "$root"/dev/{null,random,urandom}
mkdir "$work/data"
chown 65532:65532 "$work/data"
port=$(python3 -c 'import socket
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1])')
mapfile -t variables < <(said Env | grep '^CODITECT_')
variables+=("CODITECT_LISTEN=127.0.0.1:$port")
start() {
    # A read-only root, as with `docker run --read-only -v …:/data`.
    env -i PATH="$PATH" "${variables[@]}" unshare --mount --propagation private sh -c '
        set -e
        mount --bind "$1" "$1"
        mount --bind "$2" "$1/data"
        mount -t proc proc "$1/proc"
        for device in null random urandom; do mount --bind "/dev/$device" "$1/dev/$device"; done
        mount -o remount,bind,ro "$1"
        exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups= "$1" /coditect-server' \
        start "$root" "$work/data" \
        > "$work/log.out" 2> "$work/log.err" &
    server=$!
}
# The health check of the image, in the container and as its user.
healthy() {
    env -i PATH="$PATH" "${variables[@]}" \
        chroot --userspec=65532:65532 --groups= "$root" "${check[@]:1}" 2>> "$work/log.check"
}
stop() {
    kill -TERM "$server"
    local status=0
    wait "$server" || status=$?
    server=
    [ "$status" = 0 ] || fail "after SIGTERM it ended with $status"
}
call() {
    curl --silent --show-error --fail --max-time 10 "http://127.0.0.1:$port/api/v5/$1" "${@:2}"
}
body='{"email":"test@example.com","password":"correct horse battery"}'
json=(--header "Content-Type: application/json")

! healthy || fail "it is healthy before it runs"
start
until_true healthy || fail "it does not become healthy"
process=$(grep -E '^(Uid|CapEff|CapPrm|NoNewPrivs):' "/proc/$server/status" | tr -s '\t' ' ')
[ "$process" = $'Uid: 65532 65532 65532 65532\n'\
$'CapPrm: 0000000000000000\nCapEff: 0000000000000000\nNoNewPrivs: 1' ] ||
    fail "it runs as: $process"
awk '$5 == "/" { last = $6 } END { exit last !~ /^ro(,|$)/ }' "/proc/$server/mountinfo" ||
    fail "its root can be written to"
[ "$(stat -c '%u %a' "$work/data/master.key")" = "65532 600" ] || fail "its key is not its own"
call auth/register "${json[@]}" --data "$body" > /dev/null || fail "nobody can register"
stop
! healthy || fail "it is healthy after it has stopped"

start
until_true healthy || fail "it does not become healthy again"
call auth/login "${json[@]}" --data "$body" > /dev/null || fail "what was there is gone"
head -c 1 "$work/log.err" | grep -q '{' || fail "its log is no JSON"
stop
echo "the image is right: $(stat -c %s "$root/coditect-server") bytes of program"
