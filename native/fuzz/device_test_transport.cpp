// Cases of the transport: messages a front-end should not send, and that the device outlives every front-end.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>

#include "devices/fs/fs.h"
#include "devices/vsock/vsock.h"
#include "fuzz/device_test.h"
#include "linux/unix_socket.h"

namespace tskata::testing {

namespace {

struct Table {
  uint32_t count, padding;
  Region region;
};

struct Fixture {
  TemporaryFolder folder;
  std::shared_ptr<virtio::Device> device =
      std::make_shared<devices::vsock::VsockDevice>(devices::vsock::VsockOptions{0x1122334455, folder / "v", {}});
};

// Whatever `misbehave` sends ends the connection with a reason that holds `reason`; the next front-end is served as if nothing had been.
void refused(const std::function<void(FrontEnd&)>& misbehave, const std::string& reason, bool start = true) {
  const Fixture fixture;
  {
    FrontEnd front(fixture.device, start);
    misbehave(front);
    const std::string said = front.ended();
    expect(said.find(reason) != std::string::npos, "the reason is \"" + said + "\", not \"" + reason + "\"");
  }
  FrontEnd next(fixture.device);
  expect(next.stop_queue(1) == 0, "the device serves the next front-end");
}

void bad_table(const Table& table, const std::string& reason) {
  refused([&](FrontEnd& front) { front.send(set_mem_table, table, std::array{front.memory_fd()}); }, reason, false);
}

void overlapping_regions() {
  struct {
    uint32_t count = 2, padding = 0;
    Region first{0, 8192, 0x10000, 0}, second{4096, 8192, 0x20000, 0};
  } const table;
  refused([&](FrontEnd& front) { front.send(set_mem_table, table, std::array{front.memory_fd(), front.memory_fd()}); }, "overlap", false);
}

void config_space() {
  const Fixture fixture;
  FrontEnd front(fixture.device);
  const std::array<uint32_t, 5> asked{0, 8, 0, 0, 0};
  const auto answer = front.ask(get_config, std::as_bytes(std::span(asked)));
  uint64_t cid = 0;
  expect(answer.size() == 20, "size of the configuration");
  std::memcpy(&cid, answer.data() + 12, sizeof cid);
  expect(cid == 0x1122334455, "guest cid");
  const std::array<uint32_t, 3> beyond{4, 16, 0};
  const auto rest = front.ask(get_config, std::as_bytes(std::span(beyond)));
  expect(rest.size() == 28 && rest[12] == std::byte{0x11} && rest[16] == std::byte{0}, "bytes beyond the configuration read as zero");
}

// QEMU asks a vsock device for its configuration, and warns of a file system that offers to tell it.
void config_offer() {
  constexpr uint64_t config = 1ull << 9;  // VHOST_USER_PROTOCOL_F_CONFIG
  const Fixture fixture;
  FrontEnd vsock(fixture.device, false);
  expect((vsock.ask_number(get_protocol_features) & config) != 0, "vsock offers its configuration");
  FrontEnd fs(std::make_shared<devices::fs::FsDevice>(devices::fs::FsOptions{fixture.folder / "", "tag", 1}), false);
  expect((fs.ask_number(get_protocol_features) & config) == 0, "a file system offers none");
}

void second_front_end() {
  const Fixture fixture;
  FrontEnd front(fixture.device);
  try {
    os::connect_unix(front.path(), SOCK_STREAM);
    expect(false, "a second front-end connects");
  } catch (const std::system_error&) {
    // what should be
  }
}

void front_end_goes() {
  const Fixture fixture;
  for (int i = 0; i < 3; ++i) {
    FrontEnd front(fixture.device);
    front.disconnect();
    expect(front.ended().empty(), "the end of a front-end is no fault");
  }
}

void base_is_kept() {
  const Fixture fixture;
  FrontEnd front(fixture.device);
  const uint64_t at = front.allocate(4096);
  for (int i = 0; i < 3; ++i) {
    front.queue(1).add(std::array{RingDescriptor{at, 44, 0, 0}});
    front.kick(1);
    front.wait_used(1);
  }
  expect(front.stop_queue(1) == 3, "GET_VRING_BASE tells how far the device has come");
}

void memory_change() {
  const Fixture fixture;
  FrontEnd front(fixture.device);
  const uint64_t at = front.allocate(4096);
  front.share_memory();  // as QEMU does when memory is added: the rings go on
  front.queue(1).add(std::array{RingDescriptor{at, 44, 0, 0}});
  front.kick(1);
  front.wait_used(1);
}

void unread_replies() {
  const Fixture fixture;
  FrontEnd front(fixture.device);
  try {
    for (int i = 0; i < 100000; ++i) front.send(get_features, std::span<const std::byte>{});
  } catch (const std::system_error&) {
    // hung up on
  }
  expect(!front.ended().empty(), "a front-end that reads no replies is refused");
}

void ring_kicks(int fd) {
  refused([&](FrontEnd& front) { front.send(set_vring_kick, uint64_t{0}, std::array{fd}); }, "not an eventfd");
}

}  // namespace

std::vector<Case> transport_cases() {
  constexpr uint64_t size = FrontEnd::memory_bytes;
  constexpr uint64_t user = FrontEnd::user_base;
  return {
      {"transport: configuration space", config_space},
      {"transport: a second front-end is refused", second_front_end},
      {"transport: a front-end that goes leaves the device usable", front_end_goes},
      {"transport: the ring's base is kept", base_is_kept},
      {"transport: memory changes while rings run", memory_change},
      {"transport: unread replies end the connection", unread_replies},
      {"transport: region beyond its file",
       [] {
         bad_table({1, 0, {0, size * 2, user, 0}}, "beyond the end");
       }},
      {"transport: region whose offset is beyond its file",
       [] {
         bad_table({1, 0, {0, 4096, user, size}}, "beyond the end");
       }},
      {"transport: region that wraps",
       [] {
         bad_table({1, 0, {0, 4096, user, UINT64_MAX - 100}}, "broken size");
       }},
      {"transport: region of no bytes",
       [] {
         bad_table({1, 0, {0, 0, user, 0}}, "broken size");
       }},
      {"transport: region at the end of the address space",
       [] {
         bad_table({1, 0, {UINT64_MAX - 100, 4096, user, 0}}, "wraps");
       }},
      {"transport: more regions than descriptors",
       [] {
         bad_table({2, 0, {0, 4096, user, 0}}, "broken count");
       }},
      {"transport: overlapping regions", overlapping_regions},
      {"transport: unknown request", [] { refused([](FrontEnd& f) { f.send(200, uint64_t{0}); }, "unknown request"); }},
      {"transport: message too short", [] { refused([](FrontEnd& f) { f.send(set_vring_num, uint8_t{0}); }, "too short"); }},
      {"transport: message too long", [] { refused([](FrontEnd& f) { f.send(set_vring_num, std::array<std::byte, 5000>{}); }, "too long"); }},
      {"transport: ring out of range",
       [] {
         refused([](FrontEnd& f) { f.send(set_vring_num, VringState{9, 16}); }, "out of range");
       }},
      {"transport: ring size out of range",
       [] {
         refused([](FrontEnd& f) { f.send(set_vring_num, VringState{0, 65536}); }, "out of range");
       }},
      {"transport: ring size not a power of two",
       [] {
         refused(
             [](FrontEnd& f) {
               f.stop_queue(0);
               f.send(set_vring_num, VringState{0, 48});
               const os::Descriptor kick(::eventfd(0, EFD_CLOEXEC));
               f.send(set_vring_kick, uint64_t{0}, std::array{kick.get()});
             },
             "power of two");
       }},
      {"transport: configuration is offered to whom it is asked of", config_offer},
      {"transport: ring outside the memory",
       [] {
         refused([](FrontEnd& f) { f.send(set_vring_addr, std::array<uint64_t, 5>{0, 4096, 4096, 4096, 0}); }, "outside the memory table");
       }},
      {"transport: ring that leaves its region",
       [] {
         const uint64_t end = user + size / 2 - 16;
         refused([&](FrontEnd& f) { f.send(set_vring_addr, std::array<uint64_t, 5>{0, end, end, end, 0}); }, "not in guest memory");
       }},
      {"transport: misaligned ring",
       [] {
         refused([&](FrontEnd& f) { f.send(set_vring_addr, std::array<uint64_t, 5>{0, user + 1, user, user, 0}); }, "not aligned");
       }},
      {"transport: kick that is a file",
       [] {
         const os::Descriptor file(::memfd_create("kick", MFD_CLOEXEC));
         ring_kicks(file.get());
       }},
      {"transport: kick without its descriptor", [] { refused([](FrontEnd& f) { f.send(set_vring_kick, uint64_t{0}); }, "without its descriptor"); }},
  };
}

}  // namespace tskata::testing
