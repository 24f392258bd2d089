// The inside of the jail: a process that tskata-jail has put in its place gives up, thread by thread, what it has needed so far.
//
//   plan()                    before the first thread of ours: the process will be jailed
//   enter_thread(role)        the first call of every native thread. It waits there until the jail closes, and takes its role's rights
//   close(mode)               every thread of the process loses its capabilities and gets its list of system calls:
//                               those that wait in enter_thread by themselves,
//                               all others (JavaScript, V8's, libuv's) by a signal to each, whose handler does it
//
// A thread that comes later inherits from the one that makes it and narrows that to its role. So only threads made before the jail
// closes can have rights of their own: the file server's, and with /dev/kvm the virtual CPUs' and their starter's. Without plan() all this does
// nothing: tests and the guest's agent run the same code.
#pragma once
#include <cstdint>
#include <functional>
#include <thread>

#include "jail/filter.h"

namespace tskata::jail {

enum class Role : uint8_t {
  node,         // JavaScript, V8's and libuv's threads
  fs_worker,    // serves FUSE requests: the only one of its process with capabilities
  keeper,       // keeps the file server's handles, a process of its own
  vsock,        // the vsock device
  vhost_user,   // speaks with QEMU
  descriptors,  // receives descriptors and the proxies' messages
  relay,        // moves stdio
  vcpu,         // runs a virtual CPU by ioctl
  starter,      // makes devices' threads for the virtual CPUs
  device,       // any other device's thread: descriptors it has, and no new ones
  hypervisor,   // QEMU, a process of its own
  starting,     // the sandbox process until its jail closes
};

const char* name(Role role);
Policy policy(Role role);

void plan();
// Throws std::runtime_error naming the thread that could not be confined. Nothing may run in the process after that.
void close(Mode mode);
// `registered` is called once a close() that starts from then on knows the thread.
void enter_thread(Role role, const std::function<void()>& registered = {});
// A thread that enters and then does `body`. Returns once a close() knows it: one that it did not would get JavaScript's list, too.
std::thread start_thread(Role role, std::function<void()> body);

}  // namespace tskata::jail
