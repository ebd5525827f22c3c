#!/bin/busybox sh
# First program of the gateway's disk: network, the disk with the data, and the edge, started again whenever it ends.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t tmpfs run /run
$bb ip link set lo up
$bb ip addr add 10.0.2.15/24 dev eth0
$bb ip link set eth0 up
$bb ip route add default via 10.0.2.2
$bb mount -t ext4 /dev/vdb /data || echo "GATEWAY: the data do not mount"
echo "GATEWAY: starts at $($bb date -u +%FT%TZ)"
while :; do
    /bin/fellbeck-edge run --config /data/edge.toml --data-dir /data/edge
    echo "GATEWAY: the edge ended with $?"
    $bb sleep 1
done
