#!/usr/bin/env bash
# The emulated arm64 gateway of the test target `gateway` (docs/rigs.md), below target/gateway:
#   tests/gateway.sh kit     fetches compiler, kernel and busybox; nothing to do when they are there
#   tests/gateway.sh build   cross-builds fellbeck-edge
# Packages of the other architecture are fetched and unpacked with a state of apt's own, and never installed: the machine gets no second
# architecture, and no compiler beside its own. Needs root only where a package of the machine itself is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

home=$PWD/target/gateway
kit=$home/kit
target=aarch64-unknown-linux-gnu

[ "$(uname -m)" = x86_64 ] || { echo "gateway: only made on x86-64, skipped"; exit 0; }

# apt with lists of its own, of both architectures: own_apt apt-get ARGUMENTS.
own_apt() {
    local command=$1
    shift
    "$command" -q -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 \
        -o APT::Sandbox::User=root -o Dir::State="$home/apt" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$home/apt/cache" "$@"
}

# What the package $1 depends on whose name begins with $2.
dependency() {
    own_apt apt-cache depends "$1" | sed -n "s/^ *Depends: \($2[^:]*\).*/\1/p" | head -n 1
}

# Unpacks packages into the folder $1.
fetch() {
    local into=$1 file
    shift
    rm -rf "$home/apt/packages"
    mkdir -p "$home/apt/packages" "$into"
    (cd "$home/apt/packages" && own_apt apt-get download "$@" >/dev/null)
    for file in "$home"/apt/packages/*.deb; do
        dpkg-deb --extract "$file" "$into"
    done
}

make_kit() {
    echo "gateway: fetching compiler, kernel and busybox for arm64"
    rm -rf "$kit" "$home/apt"
    mkdir -p "$home/apt/lists/partial" "$home/apt/cache/archives/partial"
    # A source that has nothing for arm64, or does not answer, is no matter unless a package is missing then.
    own_apt apt-get update >/dev/null || true

    # The compiler of Debian's browsers: its standard library exists for arm64, and is read by this very compiler only.
    local rust llvm
    rust=$(dependency libstd-rust-web-dev:amd64 libstd-rust-web-)
    llvm=$(dependency "$rust:amd64" libllvm)
    fetch "$kit/rust" rustc-web:amd64 libstd-rust-web-dev:amd64 "$rust:amd64" "$llvm:amd64"
    fetch "$kit/rust" libstd-rust-web-dev:arm64
    cat >"$kit/rustc" <<'EOF'
#!/bin/sh
usr=$(dirname "$0")/rust/usr
LD_LIBRARY_PATH=$usr/lib/x86_64-linux-gnu exec "$usr/bin/rustc" "$@"
EOF
    chmod +x "$kit/rustc"
    local library=$kit/rust/usr/lib/x86_64-linux-gnu
    if LD_LIBRARY_PATH=$library ldd "$library"/*.so* | grep -q 'not found'; then
        # shellcheck disable=SC2046
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            $(own_apt apt-cache depends "$llvm:amd64" | sed -n 's/^ *Depends: \([^:<]*\).*/\1/p') >/dev/null
    fi
    "$kit/rustc" --version >/dev/null

    local kernel
    kernel=$(dependency linux-image-arm64:arm64 linux-image-)
    fetch "$kit/linux" "$kernel:arm64" busybox-static:arm64
    rm -rf "$home/apt"
    # Written last, so that what was cut short is done again.
    cp tests/gateway.sh "$kit/made-by"
}

build() {
    if [ ! -e "$kit/made-by" ]; then
        echo "gateway: there is no kit (tests/gateway.sh kit), so no edge is built for it"
        [ -z "${FELLBECK_GATEWAY_REQUIRED:-}" ]
        return
    fi
    # Another compiler than that of the workspace, so a target directory of its own.
    RUSTC=$kit/rustc RUSTFLAGS='' CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CARGO_TARGET_DIR=$home \
        ${CARGO:-cargo} build --locked --profile gateway --target "$target" -p fellbeck-edge --bin fellbeck-edge
}

case ${1:-} in
kit) cmp -s tests/gateway.sh "$kit/made-by" || make_kit ;;
build) build ;;
*)
    echo "usage: tests/gateway.sh kit|build" >&2
    exit 2
    ;;
esac
