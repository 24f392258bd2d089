// Device tests: `device_test --list` names the cases, `device_test <case>` runs one. test/device runs them all.
#include "fuzz/device_test.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <stdexcept>

#include "linux/fd_passing.h"
#include "linux/unix_socket.h"

namespace tskata::testing {

using os::checked;
using os::Descriptor;

namespace {

constexpr auto patience = std::chrono::seconds(10);

void write_event(int fd) {
  const uint64_t one = 1;
  expect(::write(fd, &one, sizeof one) == sizeof one, "write eventfd");
}

}  // namespace

void expect(bool holds, const std::string& what, int line, const char* file) {
  if (!holds) throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

void need(bool has, const std::string& what) {
  if (!has) throw Skipped(what);
}

void need_root() { need(::getuid() == 0, "root's rights"); }

void eventually(const std::function<bool()>& done, const std::string& what, int line, const char* file) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!done()) {
    expect(std::chrono::steady_clock::now() < end, "waited in vain: " + what, line, file);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

FrontEnd::FrontEnd(std::shared_ptr<virtio::Device> device, bool start, uint64_t features)
    : path_(folder_ / "socket"), end_(ended_.get_future()), device_(std::move(device)), features_(features) {
  server_ = std::make_unique<transport::VhostUserServer>(device_, path_, [this](const std::string& reason) { ended_.set_value(reason); });
  socket_ = os::connect_unix(path_, SOCK_STREAM);
  memory_fd_.reset(checked(::memfd_create("guest", MFD_CLOEXEC), "memfd_create"));
  checked(::ftruncate(memory_fd_.get(), memory_bytes), "ftruncate");
  void* const mapped = ::mmap(nullptr, memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_.get(), 0);
  expect(mapped != MAP_FAILED, "mmap");
  memory_ = {static_cast<std::byte*>(mapped), memory_bytes};
  const uint64_t offered = ask_number(get_features);
  expect((offered & features_) == features_ && (offered & virtio::feature_version_1) != 0, "features are offered");
  send(set_protocol_features, ask_number(get_protocol_features));
  send(set_features, features_ | virtio::feature_version_1 | 1ull << 30);
  const size_t count = device_->queue_count();
  expect(ask_number(get_queue_num) == count, "number of queues");
  queues_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    rings_.push_back(allocate(DriverQueue::bytes(queue_size)));
    kicks_.emplace_back(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
    calls_.emplace_back(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
  }
  if (!start) return;
  share_memory();
  for (size_t i = 0; i < count; ++i) start_queue(i);
}

FrontEnd::~FrontEnd() {
  socket_.reset();
  server_.reset();
  ::munmap(memory_.data(), memory_.size());
}

// Two regions with a hole between them in both address spaces, so that every translation is put to use.
void FrontEnd::share_memory() {
  struct {
    uint32_t count = 2, padding = 0;
    Region low{guest_base, memory_bytes / 2, user_base, 0};
    Region high{guest_base + 2 * memory_bytes, memory_bytes / 2, user_base + 5 * memory_bytes, memory_bytes / 2};
  } const table;
  send(set_mem_table, table, std::array{memory_fd_.get(), memory_fd_.get()});
}

void FrontEnd::start_queue(size_t index) {
  const auto number = static_cast<uint32_t>(index);
  const uint64_t rings = rings_.at(index);
  std::ranges::fill(at(rings, DriverQueue::bytes(queue_size)), std::byte{0});
  queues_.at(index) = std::make_unique<DriverQueue>(at(rings, DriverQueue::bytes(queue_size)), rings, queue_size);
  const virtio::QueueLayout& layout = queues_.at(index)->layout();
  const auto user = [](uint64_t guest) { return guest - guest_base + user_base; };
  struct {
    uint32_t index, flags = 0;
    uint64_t descriptors, used, available, log = 0;
  } const address{number, 0, user(layout.descriptors), user(layout.used), user(layout.available), 0};
  send(set_vring_num, VringState{number, queue_size});
  send(set_vring_base, VringState{number, 0});
  send(set_vring_addr, address);
  send(set_vring_call, uint64_t{number}, std::array{calls_.at(index).get()});
  send(set_vring_kick, uint64_t{number}, std::array{kicks_.at(index).get()});
  send(set_vring_enable, VringState{number, 1});
}

uint32_t FrontEnd::stop_queue(size_t index) {
  const VringState state{static_cast<uint32_t>(index), 0};
  const auto answer = ask(get_vring_base, std::as_bytes(std::span(&state, 1)));
  VringState out;
  expect(answer.size() == sizeof out, "answer to GET_VRING_BASE");
  std::memcpy(&out, answer.data(), sizeof out);
  return out.num;
}

void FrontEnd::kick(size_t index) { write_event(kicks_.at(index).get()); }

bool FrontEnd::interrupted(size_t index) {
  uint64_t count;
  return ::read(calls_.at(index).get(), &count, sizeof count) == sizeof count;
}

Used FrontEnd::wait_used(size_t index) {
  std::optional<Used> out;
  eventually([&] { return (out = queue(index).take()).has_value(); }, "a buffer of queue " + std::to_string(index) + " comes back");
  return *out;
}

uint64_t FrontEnd::allocate(size_t bytes) {
  const uint64_t out = guest_base + allocated_;
  allocated_ += (bytes + 15) & ~size_t{15};
  expect(allocated_ <= memory_bytes / 2, "the test has memory left");
  return out;
}

std::span<std::byte> FrontEnd::at(uint64_t address, size_t bytes) { return memory_.subspan(address - guest_base, bytes); }

void FrontEnd::send(uint32_t request, std::span<const std::byte> payload, std::span<const int> fds) {
  const std::array<uint32_t, 3> header{request, 1, static_cast<uint32_t>(payload.size())};
  std::vector<std::byte> bytes(sizeof header + payload.size());
  std::memcpy(bytes.data(), header.data(), sizeof header);
  if (!payload.empty()) std::memcpy(bytes.data() + sizeof header, payload.data(), payload.size());
  os::send_packet(socket_.get(), bytes, fds);
}

std::vector<std::byte> FrontEnd::ask(uint32_t request, std::span<const std::byte> payload) {
  send(request, payload);
  std::array<uint32_t, 3> header;
  expect(::recv(socket_.get(), header.data(), sizeof header, MSG_WAITALL) == sizeof header, "an answer to " + std::to_string(request));
  expect(header[0] == request && header[1] == 5, "the answer's header");
  std::vector<std::byte> out(header[2]);
  expect(::recv(socket_.get(), out.data(), out.size(), MSG_WAITALL) == static_cast<ssize_t>(out.size()), "the answer's payload");
  return out;
}

uint64_t FrontEnd::ask_number(uint32_t request) {
  const auto answer = ask(request);
  uint64_t out;
  expect(answer.size() == sizeof out, "an answer of eight bytes");
  std::memcpy(&out, answer.data(), sizeof out);
  return out;
}

std::string FrontEnd::ended() {
  expect(end_.wait_for(patience) == std::future_status::ready, "the server ends");
  return end_.get();
}

namespace {

void publish_one(FrontEnd& front, size_t queue, const RingDescriptor& first) {
  front.queue(queue).set_descriptor(0, first);
  front.queue(queue).publish(0);
}

// An indirect table of these descriptors, in descriptor 0.
void publish_indirect(FrontEnd& front, size_t queue, std::span<const RingDescriptor> table, uint32_t length) {
  const uint64_t at = front.allocate(table.size_bytes());
  std::memcpy(front.at(at, table.size_bytes()).data(), table.data(), table.size_bytes());
  publish_one(front, queue, {at, length, flag_indirect, 0});
}

}  // namespace

const std::vector<Breakage>& breakages() {
  using D = RingDescriptor;
  constexpr uint64_t base = FrontEnd::guest_base;
  static const std::vector<Breakage> all{
      {"chain that loops",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{base, 64, flag_next, 0});
       }},
      {"loop of two descriptors",
       [](FrontEnd& f, size_t q) {
         f.queue(q).set_descriptor(1, D{base, 64, flag_next, 0});
         publish_one(f, q, D{base, 64, flag_next, 1});
       }},
      {"address outside memory",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{0x1000, 64, 0, 0});
       }},
      {"address that wraps",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{UINT64_MAX - 8, 64, 0, 0});
       }},
      {"length beyond the region",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{base + FrontEnd::memory_bytes / 2 - 8, 64, 0, 0});
       }},
      {"huge length",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{base, UINT32_MAX, 0, 0});
       }},
      {"buffer in the hole",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{base + FrontEnd::memory_bytes, 64, flag_write, 0});
       }},
      {"next out of range",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{base, 64, flag_next, 5000});
       }},
      {"head out of range", [](FrontEnd& f, size_t q) { f.queue(q).publish(5000); }},
      {"available index that runs ahead", [](FrontEnd& f, size_t q) { f.queue(q).set_available_index(4096); }},
      {"readable after writable",
       [](FrontEnd& f, size_t q) {
         f.queue(q).set_descriptor(1, D{base, 64, 0, 0});
         publish_one(f, q, D{base, 64, flag_write | flag_next, 1});
       }},
      {"indirect table of a broken length",
       [](FrontEnd& f, size_t q) {
         publish_indirect(f, q, std::array{D{base, 64, 0, 0}}, 15);
       }},
      {"indirect table outside memory",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{0x1000, 16, flag_indirect, 0});
       }},
      {"indirect table in an indirect table",
       [](FrontEnd& f, size_t q) {
         publish_indirect(f, q, std::array{D{base, 16, flag_indirect, 0}}, 16);
       }},
      {"indirect table that loops",
       [](FrontEnd& f, size_t q) {
         publish_indirect(f, q, std::array{D{base, 0, flag_next, 1}, D{base, 0, flag_next, 0}}, 32);
       }},
      {"indirect table with a next",
       [](FrontEnd& f, size_t q) {
         publish_one(f, q, D{base, 16, static_cast<uint16_t>(flag_indirect | flag_next), 1});
       }},
  };
  return all;
}

Answer exchange(FrontEnd& front, size_t queue, std::span<const std::byte> readable, size_t room) {
  std::vector<RingDescriptor> pieces;
  if (!readable.empty()) {
    const uint64_t at = front.allocate(readable.size());
    std::ranges::copy(readable, front.at(at, readable.size()).begin());
    pieces.push_back({at, static_cast<uint32_t>(readable.size()), 0, 0});
  }
  const uint64_t out = front.allocate(room);
  std::ranges::fill(front.at(out, room), std::byte{0xee});
  if (room > 0) pieces.push_back({out, static_cast<uint32_t>(room), flag_write, 0});
  const uint16_t head = front.queue(queue).add(pieces);
  front.kick(queue);
  const Used used = front.wait_used(queue);
  expect(used.head == head, "the buffer that came back");
  const auto bytes = front.at(out, room);
  return {used.length, {bytes.begin(), bytes.end()}};
}

void expect_stop(FrontEnd& front, size_t queue, std::span<const RingDescriptor> pieces) {
  front.queue(queue).add(pieces);
  const uint64_t at = front.allocate(64);
  for (int i = 0; i < 2; ++i) {
    front.kick(queue);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    expect(!front.queue(queue).take(), "nothing comes back");
    front.queue(queue).add(std::array{RingDescriptor{at, 64, flag_write, 0}});
  }
}

void add_breakages(std::vector<Case>& out, const std::string& device, size_t queue, const std::function<std::shared_ptr<virtio::Device>()>& make,
                   const std::function<void(FrontEnd&)>& works, const Sample& sample, uint64_t features) {
  for (const Breakage& how : breakages()) {
    out.push_back({device + ": " + how.name, [=, &how] {
                     FrontEnd front(make(), true, features);
                     how.make(front, queue);
                     front.kick(queue);
                     std::this_thread::sleep_for(std::chrono::milliseconds(20));
                     expect(!front.queue(queue).take(), "nothing comes back");
                     front.stop_queue(queue);
                     front.start_queue(queue);
                     works(front);
                   }});
  }
  out.push_back({device + ": tables that change while they are read", [=] {
                   FrontEnd front(make(), true, features);
                   flip_tables(front, queue, sample);
                   works(front);
                 }});
}

}  // namespace tskata::testing

int main(int count, char** arguments) {
  using namespace tskata::testing;
  std::vector<Case> cases;
  for (const auto& part : {transport_cases, queue_cases, vsock_cases, fs_cases, fs_hostile_cases, fs_writeback_cases, host_watch_cases, keeper_cases,
                           proxy_cases, rng_cases, pmem_cases, balloon_cases, blk_cases, console_cases, net_cases, mmio_cases, kvm_cases}) {
    std::ranges::move(part(), std::back_inserter(cases));
  }
  const std::string wanted = count == 2 ? arguments[1] : "--list";
  for (const Case& one : cases) {
    if (wanted == "--list") {
      std::printf("%s\n", one.name.c_str());
      continue;
    }
    if (wanted != one.name) continue;
    try {
      one.run();
      return 0;
    } catch (const Skipped& skipped) {
      std::printf("skipped: it needs %s\n", skipped.what());
      return exit_skipped;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: %s\n", one.name.c_str(), error.what());
      return 1;
    }
  }
  return wanted == "--list" ? 0 : 2;
}
