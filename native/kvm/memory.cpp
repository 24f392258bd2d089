// mmap of guest memory.
#include "kvm/memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <stdexcept>

namespace tskata::kvm {

namespace {

std::span<std::byte> map(std::byte* at, size_t bytes, int flags, int fd) {
  void* const address = ::mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | flags, fd, 0);
  if (address == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap guest memory");
  return {static_cast<std::byte*>(address), bytes};
}

}  // namespace

Mapping::Mapping(size_t bytes) : bytes_(map(nullptr, bytes, MAP_ANONYMOUS, -1)) {
  // A crash of this process must not write a guest's secrets to a core file.
  ::madvise(bytes_.data(), bytes_.size(), MADV_DONTDUMP);
}

Mapping::Mapping(int fd, size_t bytes) : Mapping(bytes) {
  struct stat file {};
  os::checked(::fstat(fd, &file), "fstat");
  const auto length = static_cast<size_t>(file.st_size);
  if (length == 0 || length > bytes) throw std::invalid_argument("a file of no bytes, or larger than its place");
  map(bytes_.data(), length, MAP_FIXED, fd);
}

Mapping::~Mapping() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace tskata::kvm
