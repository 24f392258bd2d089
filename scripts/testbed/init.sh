#!/bin/busybox sh
# PID 1 of the testbed, in its initramfs: makes a root of the host's own tree, shared read-only, with a tmpfs over it for
# what is written, and goes on there with main.sh. What differs from run to run is in /job, as assignments.
set -eu
busybox=/bin/busybox
trap '$busybox echo "testbed: init failed" >/dev/console' EXIT
. /job/settings

$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do $busybox insmod "/modules/$module"; done </modules/order
$busybox losetup -f >/dev/null # /dev/loop0, where the kernel has none from its start

$busybox mount -t virtiofs -o ro host /host
$busybox mount -t tmpfs -o mode=755,size=75% changes /changes
$busybox mkdir /changes/upper /changes/work
$busybox mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work overlay /root
# The tree as it is below the mounts that follow.
$busybox mount --bind /root /bare

$busybox mount --move /proc /root/proc
$busybox mount --move /sys /root/sys
$busybox mount --move /dev /root/dev
$busybox mount -t tmpfs -o mode=755 run /root/run
# On a disk's filesystem, as on most hosts: what containers do with files is compared with what it does, and tmpfs has no O_DIRECT.
size=$($busybox awk '/^MemTotal/ { print int($2 / 2) }' /root/proc/meminfo)
$busybox truncate -s "${size}k" /changes/tmp.ext4
$busybox losetup /root/dev/loop0 /changes/tmp.ext4
$busybox chroot /root /sbin/mke2fs -q -t ext4 -m 0 -O ^has_journal -E lazy_itable_init=1,nodiscard /dev/loop0
$busybox mount -t ext4 -o discard,noinit_itable /root/dev/loop0 /root/tmp
$busybox rmdir /root/tmp/lost+found
$busybox chmod 1777 /root/tmp
# What the command needs of the host's /tmp is seen through the new one.
while read -r path; do
  $busybox mkdir -p "/root$path"
  $busybox mount --bind "/bare$path" "/root$path"
done </job/kept
if [ "$results" = yes ]; then
  $busybox mkdir -p /root/results
  $busybox mount -t virtiofs results /root/results
fi
$busybox umount -l /bare

$busybox mkdir /root/run/testbed
for file in /bin/busybox /main.sh /job/settings /job/command; do $busybox cp "$file" /root/run/testbed/; done
trap - EXIT
exec $busybox switch_root -c /dev/console /root /run/testbed/busybox sh /run/testbed/main.sh
