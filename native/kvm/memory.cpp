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

// At a multiple of the processor's large pages: where the kernel backs the memory with them, KVM maps one at a time only if host and guest
// addresses are aligned alike.
std::span<std::byte> map_aligned(size_t bytes) {
  constexpr size_t large_page = 2 << 20;
  if (bytes == 0) throw std::system_error(EINVAL, std::generic_category(), "mmap guest memory");
  if (bytes > SIZE_MAX - large_page) throw std::system_error(ENOMEM, std::generic_category(), "mmap guest memory");
  const std::span<std::byte> all = map(nullptr, bytes + large_page, MAP_ANONYMOUS, -1);
  const size_t before = (large_page - reinterpret_cast<uintptr_t>(all.data()) % large_page) % large_page;
  if (before > 0) ::munmap(all.data(), before);
  ::munmap(all.data() + before + bytes, large_page - before);
  return all.subspan(before, bytes);
}

}  // namespace

Mapping::Mapping(size_t bytes) : bytes_(map_aligned(bytes)) {
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
