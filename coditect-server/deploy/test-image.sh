#!/usr/bin/env bash
# Makes the image and runs it the way a cluster would: as its user, without a capability, on a root file system
# that is read-only, with a folder at /data. Needs root, Debian's buildah, python3 and curl; no engine, no network.
#
# The first stage of the Dockerfile starts from an image of Rust, which has to be fetched; in its place comes what
# build-static.sh, the command of that stage, makes on this machine. The last stage is the Dockerfile's.
#
#   coditect-server/deploy/test-image.sh [flags of cargo]
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
# Until a command succeeds, half a minute at the most.
until_true() {
    for _ in $(seq 150); do
        ! "$@" > /dev/null 2>&1 || return 0
        sleep 0.2
    done
    return 1
}

# --- the first stage: what of the repository is sent to an engine, and the command on that
rm -rf "$built"
mkdir -p "$built"
printf 'FROM scratch\nCOPY . /src\n' > "$work/Dockerfile"
image build --quiet --isolation chroot --ignorefile coditect-server/deploy/Dockerfile.dockerignore \
    --file "$work/Dockerfile" --tag context . > /dev/null
cp -a "$(image mount "$(image from context)")/src" "$built/src"
[ ! -e "$built/src/target" ] && [ ! -e "$built/src/.git" ] || fail "the context has what is no source"
(
    export CARGO_TARGET_DIR=$PWD/target
    cd "$built/src"
    coditect-server/deploy/build-static.sh "$built/image" "$@"
)

# --- the last stage
image build --quiet --isolation chroot --format docker --build-context "build=$built" \
    --file coditect-server/deploy/Dockerfile --tag coditect-server . > /dev/null
container=$(image from coditect-server)
root=$(image mount "$container")

# --- what the image says
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
for word in json.load(open(sys.argv[1]))["Docker"]["config"]["Healthcheck"]["Test"]: print(word)' "$work/image.json")
[ "${check[*]}" = "CMD /coditect-server health" ] || fail "the image has the health check ${check[*]}"

# --- what is in it: the program, and a folder that is its user's
there=$(cd "$root" && find . -mindepth 1 ! -path './proc*' ! -path './sys*' ! -path './dev*' -printf '%P %U\n' | sort)
[ "$there" = $'coditect-server 0\ndata 65532' ] || fail "the image has in it: $there"

# --- it runs; with what every engine gives a container, too: devices, and /proc
mkdir "$root/dev" "$root/proc"
touch "$root"/dev/{null,random,urandom}
mkdir "$work/data"
chown 65532:65532 "$work/data"
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
mapfile -t variables < <(said Env | grep '^CODITECT_')
variables+=("CODITECT_LISTEN=127.0.0.1:$port")
start() {
    # A root of its own that nobody can write to, as `docker run --read-only -v …:/data` makes one.
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
# The image's own check, where the server is, as its user.
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
[ "$process" = $'Uid: 65532 65532 65532 65532\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nNoNewPrivs: 1' ] ||
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
