# PID 1 of the testbed once its root stands: the rest of what a booted system has, then the command, its output to two
# virtio ports. The marker at the start tells the host that we have booted, the one at the end that all output is out.
set -u
cd /
busybox=/run/testbed/busybox
. /run/testbed/settings

for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do $busybox ln -s "/proc/self/${link#*:}" "/dev/${link%%:*}"; done
$busybox mkdir -p /dev/pts /dev/shm /dev/mqueue
$busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$busybox mount -t tmpfs -o mode=1777 shm /dev/shm
$busybox mount -t mqueue mqueue /dev/mqueue
$busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $($busybox cat /sys/fs/cgroup/cgroup.controllers); do echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control; done
$busybox hostname tskata-testbed
$busybox ip link set lo up
ulimit -n 1048576

# The host need not have kmod: ours loads what is asked for by name, and what the kernel asks for (an overlay, a veth, …).
if [ -n "$modules" ]; then
  $busybox ln -s busybox /run/testbed/modprobe
  $busybox mkdir -p /lib/modules
  [ -e "/lib/modules/$version" ] || $busybox ln -s "$modules" "/lib/modules/$version"
  echo /run/testbed/modprobe >/proc/sys/kernel/modprobe
  $busybox modprobe -a kvm_amd tun loop vhost_vsock
fi

while [ ! -c /dev/vport0p1 ] || [ ! -c /dev/vport0p2 ]; do $busybox usleep 10000; done
exec 3>/dev/vport0p1 4>/dev/vport0p2
printf '%s' "$marker" >&3
printf '%s' "$marker" >&4

# The command gets pipes, as it would from a shell: a port can be opened only once, so /dev/stdout would fail.
$busybox mkfifo /run/testbed/out /run/testbed/err
$busybox cat /run/testbed/out >&3 4>&- &
out=$!
$busybox cat /run/testbed/err >&4 3>&- &
err=$!
/bin/sh /run/testbed/command </dev/null >/run/testbed/out 2>/run/testbed/err 3>&- 4>&- &
wait $!
status=$?

# What the command left running would keep the pipes open. Kernel threads have no executable.
for folder in /proc/[0-9]*; do
  pid=${folder#/proc/}
  case $pid in 1 | "$out" | "$err") continue ;; esac
  [ -n "$($busybox readlink "$folder/exe")" ] && kill -KILL "$pid" 2>/dev/null
done
wait "$out" "$err"
$busybox sync
printf '%s' "$marker" >&4
printf '%s%s\n' "$marker" "$status" >&3
# The host ends the machine when it has read both: powering off here could lose what the ports still hold.
while :; do $busybox sleep 1000; done
