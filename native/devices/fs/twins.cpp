// Telling names of overlayfs from each other by open file description locks (fcntl(2)).
#include "devices/fs/twins.h"

#include <sys/random.h>

#include <cstdint>
#include <system_error>

namespace tskata::devices::fs {

namespace {

off_t random_far_byte() {
  uint32_t random = 0;
  if (::getrandom(&random, sizeof random, 0) != sizeof random) throw std::system_error(errno, std::generic_category(), "getrandom");
  return (off_t{1} << 62) + random;
}

struct flock lock_of(short type, off_t byte) {
  struct flock out {};
  out.l_type = type;
  out.l_whence = SEEK_SET;
  out.l_start = byte;
  out.l_len = 1;
  return out;
}

}  // namespace

Twins::Twins() : byte_(random_far_byte()) {}

bool Twins::is_one_inode(int one, int other) const {
  try {
    const os::Descriptor locked = own_.open(one, O_RDONLY), asked = own_.open(other, O_RDONLY);
    struct flock lock = lock_of(F_RDLCK, byte_);  // needs no right to write
    os::checked(::fcntl(locked.get(), F_OFD_SETLK, &lock), "lock");
    struct flock question = lock_of(F_WRLCK, byte_);
    os::checked(::fcntl(asked.get(), F_OFD_GETLK, &question), "ask for a lock");
    return question.l_type != F_UNLCK;
  } catch (const std::system_error&) {
    return true;
  }
}

}  // namespace tskata::devices::fs
