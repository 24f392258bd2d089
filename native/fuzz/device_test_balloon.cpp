// Cases of the balloon: pages are really given back, of shared memory (through the transport) and of private memory (by hand).
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "devices/balloon/balloon.h"
#include "fuzz/device_test.h"

namespace tskata::testing {

namespace {

using devices::balloon::BalloonDevice;
using os::Descriptor;

constexpr size_t inflate_queue = 0;
constexpr size_t deflate_queue = 1;
constexpr size_t linux_reporting_queue = 2;
constexpr size_t reporting_queue = 4;
constexpr size_t page = BalloonDevice::page_bytes;

std::shared_ptr<virtio::Device> make() { return std::make_shared<BalloonDevice>(); }

// How many of these pages the host has memory for.
size_t resident(std::span<std::byte> pages) {
  std::vector<unsigned char> map(pages.size() / page);
  os::checked(::mincore(pages.data(), pages.size(), map.data()), "mincore");
  return static_cast<size_t>(std::ranges::count_if(map, [](unsigned char one) { return (one & 1) != 0; }));
}

// So many touched pages of the guest's, page-aligned.
uint64_t touched(FrontEnd& front, size_t pages) {
  const uint64_t at = (front.allocate((pages + 1) * page) + page - 1) & ~(page - 1);
  std::ranges::fill(front.at(at, pages * page), std::byte{7});
  return at;
}

std::vector<uint32_t> numbers(uint64_t at, size_t pages) {
  std::vector<uint32_t> out;
  for (size_t i = pages; i > 0; --i) out.push_back(static_cast<uint32_t>(at / page + i - 1));  // downwards, as Linux does
  return out;
}

void inflates(FrontEnd& front) {
  const uint64_t at = touched(front, 32);
  expect(resident(front.at(at, 32 * page)) == 32, "the pages are there");
  std::vector<uint32_t> list = numbers(at + page, 30);
  list.push_back(list.front());  // a number twice is one page
  exchange(front, inflate_queue, std::as_bytes(std::span(list)), 0);
  expect(resident(front.at(at, 32 * page)) == 2, "30 pages go back to the host");
  expect(front.at(at, 1)[0] == std::byte{7} && front.at(at + 31 * page, 1)[0] == std::byte{7}, "their neighbours stay");
  expect(front.at(at + page, 1)[0] == std::byte{0}, "a page that is touched again is empty");
  exchange(front, deflate_queue, std::as_bytes(std::span(list)), 0);
}

void reports(size_t queue) {
  FrontEnd front(make());
  const uint64_t at = touched(front, 16);
  // Whole pages, and pieces that begin and end within one: only what is wholly inside may go.
  const std::array pieces{RingDescriptor{at, 4 * page, flag_write, 0}, RingDescriptor{at + 5 * page + 1, 2 * page, flag_write, 0},
                          RingDescriptor{at + 10 * page + 1, 100, flag_write, 0}};
  front.queue(queue).add(pieces);
  front.kick(queue);
  expect(front.wait_used(queue).length == 0, "nothing is written");
  expect(resident(front.at(at, 16 * page)) == 11, "five whole pages go back");
  expect(front.at(at + 5 * page, 1)[0] == std::byte{7} && front.at(at + 7 * page, 1)[0] == std::byte{7}, "parts of pages stay");
  expect(front.at(at + 10 * page + 1, 1)[0] == std::byte{7}, "a part of one page stays");
}

// Private anonymous memory, as our own VMM has it: the kernel says which pages there are.
void private_memory() {
  constexpr size_t bytes = 64 * page;
  void* const mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  expect(mapped != MAP_FAILED, "mmap");
  const std::span memory(static_cast<std::byte*>(mapped), bytes);
  std::ranges::fill(memory.subspan(32 * page), std::byte{7});
  expect(resident(memory.subspan(32 * page)) == 32, "the pages are there");
  constexpr uint64_t base = 0x100000;
  const auto guest = std::make_shared<const virtio::GuestMemory>(std::vector<virtio::MemoryRegion>{{base, memory}});
  DriverQueue driver(memory.first(DriverQueue::bytes(64)), base, 64);
  const Descriptor kick(os::checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
  const auto device = make();
  device->start_queue(inflate_queue, {std::make_shared<virtio::Queue>(guest, driver.layout(), 0, 0), kick.get(), [] {}});
  const std::vector<uint32_t> list = numbers(base + 40 * page, 8);
  std::memcpy(memory.data() + 16 * page, list.data(), list.size() * sizeof(uint32_t));
  driver.add(std::array{RingDescriptor{base + 16 * page, static_cast<uint32_t>(list.size() * sizeof(uint32_t)), 0, 0}});
  ::eventfd_write(kick.get(), 1);
  eventually([&] { return driver.take().has_value(); }, "the request is served");
  device->stop_queue(inflate_queue);
  expect(resident(memory.subspan(32 * page)) == 24, "eight pages go back to the host");
  ::munmap(mapped, bytes);
}

uint32_t config_word(virtio::Device& device, size_t offset) {
  uint32_t out = 0;
  device.read_config(offset, std::as_writable_bytes(std::span(&out, 1)));
  return out;
}

void target() {
  const auto device = std::make_shared<BalloonDevice>();
  int changes = 0;
  device->on_config_change([&] { ++changes; });
  device->set_target(1000);
  device->set_target(1000);
  expect(changes == 1 && config_word(*device, 0) == 1000, "the driver is told of a new target, once");
  FrontEnd front(device);
  struct {
    uint32_t offset = 0, size = 12, flags = 0, num_pages = 5, actual = 700, beyond = 9;
  } const written;
  front.send(set_config, written);
  front.stop_queue(deflate_queue);  // an answer: the message before has been served
  expect(device->actual() == 700, "what the driver says of itself");
  expect(config_word(*device, 0) == 1000 && config_word(*device, 8) == 0, "no other field is the driver's");
  device->write_config(5, std::array{std::byte{1}});
  expect(device->actual() == (700u & ~0xff00u) + 256, "a field in parts");
  device->write_config(SIZE_MAX - 1, std::array<std::byte, 4>{});
  device->reset();
  expect(device->actual() == 0 && config_word(*device, 0) == 1000, "a new driver begins with an empty balloon");
}

void short_config_message() {
  FrontEnd front(make());
  front.send(set_config, std::array<uint32_t, 3>{0, 8, 0});
  expect(front.ended().find("too short") != std::string::npos, "refused");
}

void stops_at(const std::vector<uint32_t>& list, size_t bytes) {
  FrontEnd front(make());
  const uint64_t at = front.allocate(std::max<size_t>(bytes, 4));
  std::memcpy(front.at(at, bytes).data(), list.data(), std::min(bytes, list.size() * sizeof(uint32_t)));
  expect_stop(front, inflate_queue, std::array{RingDescriptor{at, static_cast<uint32_t>(bytes), 0, 0}});
  front.stop_queue(inflate_queue);
  front.start_queue(inflate_queue);
  inflates(front);
}

void odd_buffers() {
  FrontEnd front(make());
  const uint64_t at = front.allocate(64);
  front.queue(inflate_queue).add(std::array{RingDescriptor{at, 0, 0, 0}});
  front.kick(inflate_queue);
  front.wait_used(inflate_queue);
  expect_stop(front, reporting_queue, std::array{RingDescriptor{at, 64, 0, 0}});
  inflates(front);  // the other queues go on
}

}  // namespace

std::vector<Case> balloon_cases() {
  constexpr auto base = static_cast<uint32_t>(FrontEnd::guest_base / page);
  constexpr auto half = static_cast<uint32_t>(FrontEnd::memory_bytes / 2 / page);
  std::vector<Case> out{
      {"balloon: inflating gives pages back",
       [] {
         FrontEnd front(make());
         inflates(front);
       }},
      {"balloon: inflating gives back private memory", private_memory},
      {"balloon: reporting gives pages back", [] { reports(reporting_queue); }},
      {"balloon: reporting on the queue that Linux uses", [] { reports(linux_reporting_queue); }},
      {"balloon: target and actual", target},
      {"balloon: configuration message that is too short", short_config_message},
      {"balloon: a page below memory", [] { stops_at({0}, 4); }},
      {"balloon: a page in the hole", [] { stops_at({base + half}, 4); }},
      {"balloon: a page at the end of the address space", [] { stops_at({UINT32_MAX}, 4); }},
      {"balloon: page numbers of a broken length", [] { stops_at({base}, 3); }},
      {"balloon: too many page numbers", [] { stops_at({base}, 64 * 1024 * 4 + 4); }},
      {"balloon: odd buffers", odd_buffers},
  };
  // A page that nothing else is in.
  const std::array<uint32_t, 1> number{base + half - 1};
  const auto bytes = std::as_bytes(std::span(number));
  add_breakages(out, "balloon inflate", inflate_queue, make, inflates, {{bytes.begin(), bytes.end()}, 0});
  add_breakages(out, "balloon deflate", deflate_queue, make,
                [](FrontEnd& front) {
                  const std::array<uint32_t, 1> one{base};
                  exchange(front, deflate_queue, std::as_bytes(std::span(one)), 0);
                },
                {{bytes.begin(), bytes.end()}, 0});
  add_breakages(out, "balloon report", reporting_queue, make,
                [](FrontEnd& front) {
                  const uint64_t at = touched(front, 2);
                  front.queue(reporting_queue).add(std::array{RingDescriptor{at, 2 * page, flag_write, 0}});
                  front.kick(reporting_queue);
                  front.wait_used(reporting_queue);
                  expect(resident(front.at(at, 2 * page)) == 0, "pages go back");
                },
                {{}, page});
  return out;
}

}  // namespace tskata::testing
