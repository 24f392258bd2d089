// The two queues of a ring and their memory ordering (io_uring(7)).
#include "linux/io_ring.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace tskata::os {

namespace {

// Each index is written by one side and read by the other: ours with release, so that what it announces is there; the kernel's with
// acquire, so that what it announces is seen.
std::atomic_ref<uint32_t> shared(uint32_t* index) { return std::atomic_ref<uint32_t>(*index); }

int make_ring(io_uring_params& parameters) {
  // No call is taken until it is bound.
  parameters.flags = IORING_SETUP_R_DISABLED;
  return checked(static_cast<int>(::syscall(SYS_io_uring_setup, IoRing::asked_entries, &parameters)), "io_uring_setup");
}

void tell(int ring, unsigned what, const void* argument, unsigned count, const char* name) {
  checked(static_cast<int>(::syscall(SYS_io_uring_register, ring, what, argument, count)), name);
}

size_t ring_bytes(const io_uring_params& parameters) {
  const size_t submissions = parameters.sq_off.array + parameters.sq_entries * sizeof(uint32_t);
  const size_t completions = parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe);
  return std::max(submissions, completions);
}

}  // namespace

IoRing::Mapping::Mapping(int fd, uint64_t offset, size_t bytes) : bytes_(bytes) {
  void* const start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, static_cast<off_t>(offset));
  if (start == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap io_uring");
  start_ = static_cast<std::byte*>(start);
}

IoRing::Mapping::~Mapping() { ::munmap(start_, bytes_); }

std::unique_ptr<IoRing> IoRing::make(int file, std::span<const uint8_t> operations) {
  try {
    return std::unique_ptr<IoRing>(new IoRing(file, operations));
  } catch (const std::system_error&) {
    return nullptr;
  }
}

IoRing::IoRing(int file, std::span<const uint8_t> operations) : fd_(make_ring(parameters_)), entries_(parameters_.sq_entries) {
  // Both of Linux 5.5, so they are there where a ring can be bound: one mapping for both queues, and what calls point to (pieces of memory)
  // is copied when they are handed over.
  constexpr uint32_t wanted = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_SUBMIT_STABLE;
  if ((parameters_.features & wanted) != wanted) throw std::system_error(ENOSYS, std::generic_category(), "io_uring's features");
  rings_ = std::make_unique<Mapping>(fd_.get(), IORING_OFF_SQ_RING, ring_bytes(parameters_));
  calls_ = std::make_unique<Mapping>(fd_.get(), IORING_OFF_SQES, entries_ * sizeof(io_uring_sqe));
  uint32_t* const order = rings_->at<uint32_t>(parameters_.sq_off.array);
  for (uint32_t i = 0; i < entries_; ++i) order[i] = i;
  bind(file, operations);
}

IoRing::~IoRing() = default;

void IoRing::bind(int file, std::span<const uint8_t> operations) {
  tell(fd_.get(), IORING_REGISTER_FILES, &file, 1, "io_uring_register: file");
  std::vector<io_uring_restriction> all;
  const auto allow = [&](uint16_t what, uint8_t value) {
    io_uring_restriction one{};
    one.opcode = what;
    one.sqe_op = value;
    all.push_back(one);
  };
  for (const uint8_t operation : operations) allow(IORING_RESTRICTION_SQE_OP, operation);
  allow(IORING_RESTRICTION_SQE_FLAGS_ALLOWED, IOSQE_FIXED_FILE);
  allow(IORING_RESTRICTION_SQE_FLAGS_REQUIRED, IOSQE_FIXED_FILE);
  tell(fd_.get(), IORING_REGISTER_RESTRICTIONS, all.data(), static_cast<unsigned>(all.size()), "io_uring_register: restrictions");
  tell(fd_.get(), IORING_REGISTER_ENABLE_RINGS, nullptr, 0, "io_uring_register: enable");
}

void IoRing::add(io_uring_sqe call, uint64_t tag) {
  call.fd = 0;  // the first, and only, of the ring's files
  call.flags = IOSQE_FIXED_FILE;
  call.user_data = tag;
  calls_->at<io_uring_sqe>(0)[added_++ & (entries_ - 1)] = call;
}

int IoRing::submit() {
  const auto head = shared(rings_->at<uint32_t>(parameters_.sq_off.head));
  shared(rings_->at<uint32_t>(parameters_.sq_off.tail)).store(added_, std::memory_order_release);
  while (const uint32_t waiting = added_ - head.load(std::memory_order_acquire)) {
    const long taken = ::syscall(SYS_io_uring_enter, fd_.get(), waiting, 0, 0, nullptr, 0);
    if (taken < 0 && errno != EINTR) return errno;
    if (taken == 0) return EAGAIN;
  }
  return 0;
}

// The kernel looks at the queue within submit() alone, so its end may go back.
std::optional<uint64_t> IoRing::take_back() {
  if (added_ == shared(rings_->at<uint32_t>(parameters_.sq_off.head)).load(std::memory_order_acquire)) return std::nullopt;
  --added_;
  shared(rings_->at<uint32_t>(parameters_.sq_off.tail)).store(added_, std::memory_order_release);
  return calls_->at<io_uring_sqe>(0)[added_ & (entries_ - 1)].user_data;
}

std::optional<IoRing::Completion> IoRing::take() {
  const auto head = shared(rings_->at<uint32_t>(parameters_.cq_off.head));
  const uint32_t next = head.load(std::memory_order_relaxed);  // nobody else writes it
  if (next == shared(rings_->at<uint32_t>(parameters_.cq_off.tail)).load(std::memory_order_acquire)) return std::nullopt;
  const io_uring_cqe& from = rings_->at<io_uring_cqe>(parameters_.cq_off.cqes)[next & (parameters_.cq_entries - 1)];
  const Completion out{from.user_data, from.res};
  // Release: it is read before its place is the kernel's again.
  head.store(next + 1, std::memory_order_release);
  return out;
}

}  // namespace tskata::os
