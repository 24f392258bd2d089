// capset and its prctls.
#include "jail/capabilities.h"

#include <linux/prctl.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace tskata::jail {

namespace {

constexpr int most_capabilities = 64;

constexpr unsigned long locked_securebits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
                                            SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

bool holds(CapabilitySet set, int number) { return (set >> number & 1) != 0; }

}  // namespace

int limit_bounding_set(CapabilitySet kept) {
  for (int number = 0; number < most_capabilities; ++number) {
    const int present = ::prctl(PR_CAPBSET_READ, number, 0, 0, 0);
    if (present < 0) return 0;  // EINVAL: beyond the last one this kernel knows
    if (present == 0 || holds(kept, number)) continue;
    if (::prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) return errno;
  }
  return 0;
}

int set_capabilities(CapabilitySet permitted, CapabilitySet inheritable) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  for (int half = 0; half < 2; ++half) {
    data[half].permitted = data[half].effective = static_cast<uint32_t>(permitted >> (32 * half));
    data[half].inheritable = static_cast<uint32_t>(inheritable >> (32 * half));
  }
  return ::syscall(SYS_capset, &header, data) == 0 ? 0 : errno;
}

int hand_on_capabilities(CapabilitySet kept) {
  if (const int error = limit_bounding_set(kept); error != 0) return error;
  // CAP_SETPCAP for the securebits below; it is not inheritable unless asked for.
  if (const int error = set_capabilities(kept | capability(CAP_SETPCAP), kept); error != 0) return error;
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return errno;
  for (int number = 0; number < most_capabilities; ++number) {
    if (holds(kept, number) && ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) != 0) return errno;
  }
  if (::prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) != static_cast<int>(locked_securebits) && ::prctl(PR_SET_SECUREBITS, locked_securebits, 0, 0, 0) != 0) {
    return errno;
  }
  return set_capabilities(kept, kept);
}

}  // namespace tskata::jail
