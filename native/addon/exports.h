// What each subject of the addon adds to the export table.
#pragma once
#include <napi.h>

namespace tskata::addon {

void export_fds(Napi::Env env, Napi::Object exports);      // socketpair, SCM_RIGHTS, pidfd
void export_mounts(Napi::Env env, Napi::Object exports);   // open_tree, mount_setattr, move_mount in another namespace
void export_guest(Napi::Env env, Napi::Object exports);    // AF_VSOCK, reaper, what PID 1 needs
void export_replay(Napi::Env env, Napi::Object exports);   // the host's changes, done once more in the guest
void export_relay(Napi::Env env, Napi::Object exports);    // bytes from descriptor to descriptor
void export_launch(Napi::Env env, Napi::Object exports);   // launcher: plan to process
void export_clock(Napi::Env env, Napi::Object exports);    // the wall clock
void export_locks(Napi::Env env, Napi::Object exports);    // flock
void export_devices(Napi::Env env, Napi::Object exports);  // virtio devices and vhost-user servers
void export_console(Napi::Env env, Napi::Object exports);  // a hypervisor's console into a bounded file
void export_jail(Napi::Env env, Napi::Object exports);     // what the sandbox process gives up
void export_kvm(Napi::Env env, Napi::Object exports);      // /dev/kvm, virtual machines

}  // namespace tskata::addon
