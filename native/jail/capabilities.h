// What of root's rights a process of a pod keeps, and how a thread gives the rest up: system calls only, so a signal handler may do it.
#pragma once
#include <linux/capability.h>

#include <cstdint>

namespace tskata::jail {

using CapabilitySet = uint64_t;

constexpr CapabilitySet capability(int number) { return CapabilitySet{1} << number; }

// What a file server needs that acts for any uid of the guest: CAP_DAC_OVERRIDE covers what CAP_DAC_READ_SEARCH would give but handles
// of files by number (open_by_handle_at), which it must not have: that is the keeper's.
constexpr CapabilitySet file_server_capabilities = capability(CAP_CHOWN) | capability(CAP_DAC_OVERRIDE) | capability(CAP_FOWNER) |
                                                   capability(CAP_FSETID) | capability(CAP_SETUID) | capability(CAP_SETGID) | capability(CAP_MKNOD) |
                                                   capability(CAP_SETFCAP);

// What the keeper of its handles needs (keeper/protocol.h).
constexpr CapabilitySet keeper_capabilities = capability(CAP_DAC_READ_SEARCH);

// What a sandbox process is started with: CAP_SETPCAP lets it empty its bounding set when its jail closes, and is gone with that.
constexpr CapabilitySet starting_capabilities = file_server_capabilities | capability(CAP_SETPCAP);

// Of the calling thread. Each gives 0 or an errno.
int limit_bounding_set(CapabilitySet kept);
int set_capabilities(CapabilitySet permitted, CapabilitySet inheritable);
// For the time after an execve: `kept` is handed on, uid 0 by itself gives nothing, and no later call changes that.
int hand_on_capabilities(CapabilitySet kept);

}  // namespace tskata::jail
