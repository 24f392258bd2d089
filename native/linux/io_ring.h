// A ring of system calls on one file (io_uring(7)): handed over many at a time, done by the kernel in any order.
//
// No list of system calls sees what goes through a ring, so the ring is bound itself before its first call: it takes the named operations
// on the one file it was made with and nothing else, and can't be told otherwise (IORING_REGISTER_RESTRICTIONS).
#pragma once
#include <linux/io_uring.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "linux/descriptor.h"

namespace tskata::os {

// Of one thread at a time.
class IoRing {
 public:
  // As the kernel is asked for; it makes 256 of it. The jail lets pass no other number while the process starts: node makes rings, too.
  static constexpr uint32_t asked_entries = 200;

  struct Completion {
    uint64_t tag;
    int result;  // of the system call, or a negative errno
  };

  // `operations` are IORING_OP_*. Nothing where the kernel has no rings that can be bound (Linux 5.10), or none for us.
  static std::unique_ptr<IoRing> make(int file, std::span<const uint8_t> operations);
  ~IoRing();

  uint32_t entries() const { return entries_; }
  // Readable when there is a completion.
  int fd() const { return fd_.get(); }

  // Adds a call; at most `entries()` may be on their way. The file is the ring's. What the call points to stays until its completion.
  void add(io_uring_sqe call, uint64_t tag);
  // Hands over what was added: 0, or the errno with which the kernel took no more.
  int submit();
  // Of the calls that were added and not taken, the last, which is then no longer the ring's.
  std::optional<uint64_t> take_back();
  std::optional<Completion> take();

 private:
  class Mapping {
   public:
    Mapping(int fd, uint64_t offset, size_t bytes);
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    template <typename T>
    T* at(size_t offset) const {
      return reinterpret_cast<T*>(start_ + offset);
    }

   private:
    std::byte* start_;
    size_t bytes_;
  };

  IoRing(int file, std::span<const uint8_t> operations);
  void bind(int file, std::span<const uint8_t> operations);

  io_uring_params parameters_{};
  Descriptor fd_;
  uint32_t entries_;
  std::unique_ptr<Mapping> rings_;
  std::unique_ptr<Mapping> calls_;
  uint32_t added_ = 0;  // our end of the submission queue; published by submit()
};

}  // namespace tskata::os
