#!/bin/busybox sh
# First program of the gateway, in the RAM file system: loads the modules and goes over to the disk with the system.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
for module in /modules/*.ko; do
    $bb insmod "$module" || echo "GATEWAY: insmod $module failed"
done
$bb mount -t ext4 -o ro /dev/vda /system || echo "GATEWAY: the system does not mount"
$bb umount /proc
$bb umount /dev
exec $bb switch_root /system /init
