#!/usr/bin/env bash
# Installs what the tests need and a fresh Debian machine lacks: mosquitto as a peer, its clients as real users, strace to see syncs,
# Python with paho-mqtt and Node.js with MQTT.js as further users (pinned in tests/clients, installed below target/clients), and what the
# emulated gateway needs (tests/gateway.sh, below target/gateway).
# Does nothing where it is there already. Needs root only when a package of Debian is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
command -v mosquitto_pub >/dev/null 2>&1 && command -v mosquitto_sub >/dev/null 2>&1 || missing+=(mosquitto-clients)
command -v strace >/dev/null 2>&1 || missing+=(strace)
command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || missing+=(python3 python3-venv)
command -v node >/dev/null 2>&1 || missing+=(nodejs)
command -v npm >/dev/null 2>&1 || missing+=(npm)
if [ "$(uname -m)" = x86_64 ]; then
    command -v qemu-system-aarch64 >/dev/null 2>&1 || missing+=(qemu-system-arm)
    { command -v aarch64-linux-gnu-gcc && [ -e /usr/aarch64-linux-gnu/lib/libc.so ]; } >/dev/null 2>&1 ||
        missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    [ -x /sbin/mke2fs ] || missing+=(e2fsprogs)
fi

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    echo "setup: installing ${missing[*]}"
    apt-get update -q >/dev/null
    apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null

    # The package starts a broker on port 1883; the tests start their own on free ports.
    if command -v systemctl >/dev/null 2>&1 && [ -d /run/systemd/system ]; then
        systemctl disable --now mosquitto >/dev/null 2>&1 || true
    elif [ -x /etc/init.d/mosquitto ]; then
        /etc/init.d/mosquitto stop >/dev/null 2>&1 || true
    fi
}

# A copy of the pins lies beside what was installed by them. It is written last, so that a broken installation is done again.
install_paho() {
    echo "setup: installing paho-mqtt"
    rm -rf target/clients/paho
    python3 -m venv target/clients/paho
    target/clients/paho/bin/python -m pip install --quiet --require-hashes -r tests/clients/paho/requirements.txt
    cp tests/clients/paho/requirements.txt target/clients/paho/installed.txt
}

install_mqttjs() {
    echo "setup: installing MQTT.js"
    rm -rf target/clients/mqttjs
    mkdir -p target/clients/mqttjs
    cp tests/clients/mqttjs/package.json tests/clients/mqttjs/package-lock.json target/clients/mqttjs/
    (cd target/clients/mqttjs && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null)
    cp tests/clients/mqttjs/package-lock.json target/clients/mqttjs/installed.json
}

[ ${#missing[@]} -eq 0 ] || install_packages
# The interpreter of a virtual environment may be gone after an upgrade of the system.
{ cmp -s tests/clients/paho/requirements.txt target/clients/paho/installed.txt &&
    target/clients/paho/bin/python -c 'import paho.mqtt' 2>/dev/null; } || install_paho
cmp -s tests/clients/mqttjs/package-lock.json target/clients/mqttjs/installed.json || install_mqttjs
# Without the gateway its tests check nothing; the gate asks for them.
bash tests/gateway.sh kit || {
    echo "setup: no emulated gateway can be made here"
    [ -z "${FELLBECK_GATEWAY_REQUIRED:-}" ]
}
