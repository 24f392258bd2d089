// Cases of the block device, each by a ring and by threads, where the kernel has rings.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <array>
#include <cstdio>
#include <map>
#include <thread>

#include "devices/blk/blk.h"
#include "fuzz/device_test.h"

namespace tskata::testing {

namespace {

using namespace devices::blk;
using os::Descriptor;

constexpr uint64_t disk_bytes = 1 << 20;
constexpr uint64_t sectors = disk_bytes / sector_bytes;
constexpr uint64_t all_features = virtio::feature_indirect_desc | feature_flush | feature_discard | feature_write_zeroes;

// Which way the case at hand goes.
bool by_ring = true;

BlkOptions options(Descriptor file, bool readonly, std::string id) { return {std::move(file), readonly, std::move(id), 2, by_ring}; }

// A disk of sectors that hold their own number, and the driver of it.
class Driver {
 public:
  explicit Driver(bool readonly = false, uint64_t features = all_features, uint64_t bytes = disk_bytes) : file_(make_file(bytes)) {
    Descriptor file(os::checked(::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0), "dup"));
    device_ = std::make_shared<BlkDevice>(options(std::move(file), readonly, "serial-of-20-bytes!!"));
    front_ = std::make_unique<FrontEnd>(device_, true, features);
  }

  // The status, and what was read.
  Status ask(uint32_t type, uint64_t sector, std::span<const std::byte> out = {}, size_t room = 0) {
    const RequestHeader header{type, 0, sector};
    std::vector<std::byte> request(sizeof header + out.size());
    std::memcpy(request.data(), &header, sizeof header);
    std::ranges::copy(out, request.begin() + sizeof header);
    Answer answer = exchange(*front_, 0, request, room + 1);
    const auto status = static_cast<Status>(answer.bytes.back());
    const bool told = status == Status::ok || room == 0;
    expect(answer.written == (told ? room + 1 : 0), "the length that is told");
    read = {answer.bytes.begin(), answer.bytes.end() - 1};
    return status;
  }
  Status clear(uint32_t type, std::vector<Segment> segments) { return ask(type, 0, std::as_bytes(std::span(segments))); }

  std::vector<std::byte> on_disk(uint64_t sector, size_t count = 1) const {
    std::vector<std::byte> out(count * sector_bytes);
    expect(::pread(file_.get(), out.data(), out.size(), static_cast<off_t>(sector * sector_bytes)) == static_cast<ssize_t>(out.size()), "pread");
    return out;
  }
  uint64_t blocks() const {
    struct stat status {};
    os::checked(::fstat(file_.get(), &status), "fstat");
    return static_cast<uint64_t>(status.st_blocks);
  }
  int file() const { return file_.get(); }
  FrontEnd& front() { return *front_; }
  BlkDevice& device() { return *device_; }

  std::vector<std::byte> read;

 private:
  Descriptor make_file(uint64_t bytes) const {
    Descriptor out(os::checked(::open((folder_ / "disk").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600), "open"));
    for (uint64_t sector = 0; sector < bytes / sector_bytes; ++sector) {
      const std::vector<std::byte> content(sector_bytes, static_cast<std::byte>(sector + 1));
      expect(::write(out.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()), "write");
    }
    os::checked(::ftruncate(out.get(), static_cast<off_t>(bytes)), "ftruncate");
    return out;
  }

  TemporaryFolder folder_;
  Descriptor file_;
  std::shared_ptr<BlkDevice> device_;
  std::unique_ptr<FrontEnd> front_;
};

std::vector<std::byte> filled(size_t bytes, int value) { return std::vector<std::byte>(bytes, static_cast<std::byte>(value)); }

void reads(FrontEnd& front) {
  const RequestHeader header{type_in, 0, 2};
  const Answer answer = exchange(front, 0, std::as_bytes(std::span(&header, 1)), sector_bytes + 1);
  expect(answer.bytes[0] == std::byte{3} && answer.bytes.back() == std::byte{0}, "sector 2 is read");
}

void read_and_write() {
  Driver driver;
  expect(driver.ask(type_in, 3, {}, 2 * sector_bytes) == Status::ok, "read");
  expect(driver.read[0] == std::byte{4} && driver.read[sector_bytes] == std::byte{5}, "what is read");
  expect(driver.ask(type_out, 10, filled(2 * sector_bytes, 0xab)) == Status::ok, "write");
  expect(driver.on_disk(10, 2) == filled(2 * sector_bytes, 0xab), "what is written");
  expect(driver.on_disk(9) == filled(sector_bytes, 10) && driver.on_disk(12) == filled(sector_bytes, 13), "the neighbours stay");
  expect(driver.ask(type_in, sectors - 1, {}, sector_bytes) == Status::ok, "the last sector");
  expect(driver.ask(type_in, 0, {}, disk_bytes / 2) == Status::ok, "a large read");
  expect(driver.ask(type_flush, 0) == Status::ok, "flush");
  expect(driver.front().interrupted(0), "the driver is interrupted");
}

// Header, data and status cut into pieces at will (§2.7.4.3 assumes nothing about framing).
void odd_framing() {
  Driver driver;
  FrontEnd& front = driver.front();
  const RequestHeader header{type_in, 0, 5};
  const uint64_t at = front.allocate(4096);
  std::memcpy(front.at(at, 16).data(), &header, sizeof header);
  const std::array pieces{RingDescriptor{at, 3, 0, 0}, RingDescriptor{at + 3, 13, 0, 0}, RingDescriptor{at + 64, 0, flag_write, 0},
                          RingDescriptor{at + 64, 1, flag_write, 0}, RingDescriptor{at + 65, 512, flag_write, 0}};
  front.queue(0).add(pieces);
  front.kick(0);
  expect(front.wait_used(0).length == 513, "length");
  expect(front.at(at + 64, 512)[511] == std::byte{6} && front.at(at + 576, 1)[0] == std::byte{0}, "data, then status");
}

// More pieces than the kernel takes in one call.
void many_pieces() {
  Driver driver;
  FrontEnd& front = driver.front();
  constexpr size_t count = 1030;
  const RequestHeader header{type_in, 0, 0};
  std::vector<RingDescriptor> table{{front.allocate(16), 16, flag_next, 1}};
  std::memcpy(front.at(table[0].address, 16).data(), &header, sizeof header);
  const uint64_t data = front.allocate(count * sector_bytes + 1);
  for (size_t i = 0; i < count; ++i) {
    table.push_back({data + i * sector_bytes, sector_bytes, flag_write | flag_next, static_cast<uint16_t>(i + 2)});
  }
  table.push_back({data + count * sector_bytes, 1, flag_write, 0});
  const uint64_t at = front.allocate(table.size() * sizeof(RingDescriptor));
  std::memcpy(front.at(at, table.size() * sizeof(RingDescriptor)).data(), table.data(), table.size() * sizeof(RingDescriptor));
  front.queue(0).add(std::array{RingDescriptor{at, static_cast<uint32_t>(table.size() * sizeof(RingDescriptor)), flag_indirect, 0}});
  front.kick(0);
  expect(front.wait_used(0).length == count * sector_bytes + 1, "all is read");
  for (size_t i = 0; i < count; ++i) expect(front.at(data + i * sector_bytes, 1)[0] == static_cast<std::byte>(i + 1), "sector " + std::to_string(i));
}

void outside() {
  Driver driver;
  const auto data = filled(sector_bytes, 1);
  expect(driver.ask(type_in, sectors, {}, sector_bytes) == Status::failed, "a read behind the end");
  expect(driver.ask(type_in, sectors - 1, {}, 2 * sector_bytes) == Status::failed, "a read across the end");
  expect(driver.ask(type_in, UINT64_MAX, {}, sector_bytes) == Status::failed, "a sector that wraps");
  expect(driver.ask(type_in, 1ull << 55, {}, sector_bytes) == Status::failed, "bytes that wrap");
  expect(driver.ask(type_out, sectors, data) == Status::failed, "a write behind the end");
  expect(driver.ask(type_out, UINT64_MAX - 1, data) == Status::failed, "a write that wraps");
  expect(driver.ask(type_in, 0, {}, 100) == Status::failed, "part of a sector");
  expect(driver.ask(type_out, 0, filled(100, 1)) == Status::failed, "part of a sector");
  struct stat status {};
  os::checked(::fstat(driver.file(), &status), "fstat");
  expect(status.st_size == disk_bytes && driver.on_disk(0) == filled(sector_bytes, 1), "the file is as it was");
  expect(driver.ask(type_in, sectors, {}, 0) == Status::ok, "nothing at the end");
}

// A file cut after the device was made: no data must not be success.
void shortened() {
  Driver driver;
  os::checked(::ftruncate(driver.file(), 4096), "ftruncate");
  expect(driver.ask(type_in, 100, {}, sector_bytes) == Status::failed, "a read where there is no file");
}

void read_only() {
  Driver driver(true, virtio::feature_indirect_desc | feature_ro);
  expect((driver.device().features() & (feature_ro | feature_discard | feature_write_zeroes)) == feature_ro, "features");
  expect(driver.ask(type_in, 1, {}, sector_bytes) == Status::ok, "read");
  expect(driver.ask(type_out, 1, filled(sector_bytes, 9)) == Status::failed, "write");
  expect(driver.clear(type_discard, {{0, 8, 0}}) == Status::unsupported, "discard");
  driver.device().set_features(all_features);  // a driver that takes what is not offered, by a transport that lets it
  expect(driver.clear(type_write_zeroes, {{0, 8, 0}}) == Status::unsupported, "write zeroes");
  expect(driver.on_disk(1) == filled(sector_bytes, 2), "the file is as it was");
}

void discard() {
  Driver driver;
  const uint64_t before = driver.blocks();
  expect(driver.clear(type_discard, {{0, 8, 0}, {64, 16, 0}}) == Status::ok, "discard");
  expect(before - driver.blocks() == 24, "the file takes less room");
  expect(driver.on_disk(8) == filled(sector_bytes, 9), "the neighbours stay");
  expect(driver.clear(type_discard, {{0, 8, 1}}) == Status::unsupported, "a discard with flags");
}

void write_zeroes() {
  Driver driver;
  const uint64_t before = driver.blocks();
  expect(driver.clear(type_write_zeroes, {{3, 5, 0}, {20, 200, 0}}) == Status::ok, "write zeroes");
  expect(driver.on_disk(3, 5) == filled(5 * sector_bytes, 0) && driver.on_disk(20, 200) == filled(200 * sector_bytes, 0), "zeroes");
  expect(driver.on_disk(2) == filled(sector_bytes, 3) && driver.on_disk(8) == filled(sector_bytes, 9), "the neighbours stay");
  expect(driver.blocks() == before, "the room stays");
  expect(driver.clear(type_write_zeroes, {{256, 64, segment_unmap}}) == Status::ok, "write zeroes, unmap");
  expect(driver.on_disk(256, 64) == filled(64 * sector_bytes, 0) && before - driver.blocks() == 64, "zeroes without room");
  expect(driver.clear(type_write_zeroes, {{0, 8, 2}}) == Status::unsupported, "an unknown flag");
}

void bad_segments() {
  Driver driver;
  for (const uint32_t type : {uint32_t{type_discard}, uint32_t{type_write_zeroes}}) {
    expect(driver.clear(type, {}) == Status::failed, "no segment");
    expect(driver.clear(type, {{sectors, 1, 0}}) == Status::failed, "behind the end");
    expect(driver.clear(type, {{sectors - 1, 2, 0}}) == Status::failed, "across the end");
    expect(driver.clear(type, {{UINT64_MAX, 2, 0}}) == Status::failed, "wraps");
    expect(driver.clear(type, {{0, UINT32_MAX, 0}}) == Status::failed, "too much at once");
    expect(driver.clear(type, std::vector<Segment>(33, Segment{0, 1, 0})) == Status::failed, "too many segments");
    expect(driver.ask(type, 0, filled(15, 0)) == Status::failed, "part of a segment");
    expect(driver.clear(type, {{0, 0, 0}}) == Status::ok, "a segment of nothing");
  }
  expect(driver.on_disk(sectors - 1) == filled(sector_bytes, static_cast<int>(sectors & 0xff)), "the last sector is as it was");
}

void not_accepted() {
  Driver driver(false, virtio::feature_indirect_desc);
  expect(driver.clear(type_discard, {{0, 8, 0}}) == Status::unsupported, "discard");
  expect(driver.clear(type_write_zeroes, {{0, 8, 0}}) == Status::unsupported, "write zeroes");
  expect(driver.ask(type_out, 0, filled(sector_bytes, 9)) == Status::ok, "a write, made durable at once");
  expect(driver.on_disk(0) == filled(sector_bytes, 9), "what is written");
}

void identity() {
  Driver driver;
  expect(driver.ask(type_get_id, 0, {}, 20) == Status::ok, "id");
  expect(std::memcmp(driver.read.data(), "serial-of-20-bytes!!", 20) == 0, "what it says");
  expect(driver.ask(type_get_id, 0, {}, 19) == Status::failed, "too little room");
}

void bad_requests() {
  Driver driver;
  expect(driver.ask(12345, 0) == Status::unsupported, "an unknown type");
  const std::array<std::byte, 15> half{};
  expect(exchange(driver.front(), 0, half, 1).bytes[0] == std::byte{1}, "half a header");
  expect(exchange(driver.front(), 0, {}, 1).bytes[0] == std::byte{1}, "no header");
  const uint64_t at = driver.front().allocate(64);
  expect_stop(driver.front(), 0, std::array{RingDescriptor{at, 16, 0, 0}});  // nowhere to put a status
  driver.front().stop_queue(0);
  driver.front().start_queue(0);
  reads(driver.front());
}

// The same memory again and again until a request is far larger than the disk could be slow for.
void huge_request() {
  Driver driver(false, all_features, 0);
  os::checked(::ftruncate(driver.file(), 1ll << 40), "ftruncate");
  const auto large = std::make_shared<BlkDevice>(options(Descriptor(::dup(driver.file())), false, ""));
  FrontEnd front(large, true, all_features);
  const RequestHeader header{type_in, 0, 0};
  const uint64_t at = front.allocate(64);
  std::memcpy(front.at(at, 16).data(), &header, sizeof header);
  constexpr uint32_t piece = 1 << 20;
  std::vector<RingDescriptor> table{{at, 16, flag_next, 1}};
  const uint64_t data = front.allocate(0);
  while (table.size() < 1026) table.push_back({data, piece, flag_write | flag_next, static_cast<uint16_t>(table.size() + 1)});
  table.push_back({at + 32, 1, flag_write, 0});
  const uint64_t where = front.allocate(table.size() * sizeof(RingDescriptor));
  std::memcpy(front.at(where, table.size() * sizeof(RingDescriptor)).data(), table.data(), table.size() * sizeof(RingDescriptor));
  front.queue(0).add(std::array{RingDescriptor{where, static_cast<uint32_t>(table.size() * sizeof(RingDescriptor)), flag_indirect, 0}});
  front.kick(0);
  expect(front.wait_used(0).length == 0 && front.at(at + 32, 1)[0] == std::byte{1}, "refused");
}

void configuration() {
  Driver driver;
  Config config;
  driver.device().read_config(0, std::as_writable_bytes(std::span(&config, 1)));
  expect(config.capacity == sectors && config.blk_size == 512 && config.seg_max == 254 && config.num_queues == 1, "configuration");
  expect(config.max_discard_seg == 32 && config.max_write_zeroes_seg == 32 && config.write_zeroes_may_unmap == 1, "limits");
  Driver odd(false, all_features, 0);
  os::checked(::ftruncate(odd.file(), 1000), "ftruncate");
  const BlkDevice device(options(Descriptor(::dup(odd.file())), true, ""));
  device.read_config(0, std::as_writable_bytes(std::span(&config, 1)));
  expect(config.capacity == 1 && config.max_discard_sectors == 0, "whole sectors only");
}

void refused_options() {
  const TemporaryFolder folder;
  os::checked(::mkfifo((folder / "fifo").c_str(), 0600), "mkfifo");
  const auto refused = [](auto&& make) {
    try {
      make();
    } catch (const std::invalid_argument&) {
      return;
    }
    expect(false, "refused");
  };
  refused([&] { BlkDevice(options(open_disk(folder / "fifo", true), true, "")); });
  refused([&] { BlkDevice(options(open_disk(folder.path(), true), true, "")); });
  refused([&] { BlkDevice(options(Descriptor(::memfd_create("disk", 0)), true, std::string(21, 'x'))); });
}

// More than one notification tells of, answered in any order.
void many_at_a_time() {
  Driver driver;
  expect(driver.device().has_ring() == by_ring, "the way that is tested");
  FrontEnd& front = driver.front();
  constexpr size_t count = FrontEnd::queue_size / 3;
  std::map<uint32_t, uint64_t> sector_of;
  std::vector<uint64_t> places;
  for (size_t i = 0; i < count; ++i) places.push_back(front.allocate(16 + sector_bytes + 1));
  for (int round = 0; round < 20; ++round) {
    for (size_t i = 0; i < count; ++i) {
      const RequestHeader header{type_in, 0, (i * 31 + static_cast<size_t>(round)) % sectors};
      std::memcpy(front.at(places[i], 16).data(), &header, sizeof header);
      std::ranges::fill(front.at(places[i] + 16, sector_bytes + 1), std::byte{0xee});
      const std::array pieces{RingDescriptor{places[i], 16, 0, 0}, RingDescriptor{places[i] + 16, sector_bytes, flag_write, 0},
                              RingDescriptor{places[i] + 16 + sector_bytes, 1, flag_write, 0}};
      sector_of[front.queue(0).add(pieces)] = i;
    }
    front.kick(0);
    for (size_t i = 0; i < count; ++i) {
      const Used used = front.wait_used(0);
      const size_t which = sector_of.at(used.head);
      const auto wanted = static_cast<std::byte>((which * 31 + static_cast<size_t>(round)) % sectors + 1);
      expect(used.length == sector_bytes + 1 && front.at(places[which] + 16 + sector_bytes, 1)[0] == std::byte{0}, "the status");
      expect(front.at(places[which] + 16, 1)[0] == wanted && front.at(places[which] + 15 + sector_bytes, 1)[0] == wanted, "the sector");
    }
  }
}

// When the stop returns, nobody writes to memory, and what was taken has come back.
void stopped_under_way() {
  Driver driver;
  FrontEnd& front = driver.front();
  constexpr size_t count = FrontEnd::queue_size / 3;
  const uint64_t data = front.allocate(disk_bytes);
  const uint64_t at = front.allocate(32);
  const RequestHeader header{type_in, 0, 0};
  std::memcpy(front.at(at, 16).data(), &header, sizeof header);
  for (int round = 0; round < 30; ++round) {
    for (size_t i = 0; i < count; ++i) {
      front.queue(0).add(
          std::array{RingDescriptor{at, 16, 0, 0}, RingDescriptor{data, disk_bytes, flag_write, 0}, RingDescriptor{at + 16, 1, flag_write, 0}});
    }
    front.kick(0);
    if (round % 3 != 0) std::this_thread::sleep_for(std::chrono::microseconds(100 * round));
    const uint32_t taken = front.stop_queue(0);
    expect((taken & 0xffff) == front.queue(0).used_index(), "each buffer taken has come back");
    std::ranges::fill(front.at(data, disk_bytes), std::byte{0});
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    expect(std::ranges::all_of(front.at(data, disk_bytes), [](std::byte b) { return b == std::byte{0}; }), "memory is left alone");
    front.start_queue(0);
  }
  reads(front);
}

// From call to call as the host's answers go: halves, interruptions, filesystems without holes.
void work_goes_on() {
  const auto total = [](const Call& call) {
    size_t out = 0;
    for (const iovec& piece : call.pieces) out += piece.iov_len;
    return out;
  };
  std::array<std::byte, 300> room{};
  Work work;
  work.read(1000, {{room.data(), 100}, {room.data() + 100, 200}});
  work.returned(-EINTR);
  expect(work.next()->offset == 1000 && total(*work.next()) == 300, "once more");
  work.returned(100);
  expect(work.next()->offset == 1100 && work.next()->pieces.size() == 1, "a whole piece");
  work.returned(50);
  expect(work.next()->offset == 1150 && work.next()->pieces[0].iov_base == room.data() + 150 && total(*work.next()) == 150, "part of one");
  work.returned(150);
  expect(work.next() == nullptr && !work.failed(), "all");
  work.read(0, {{room.data(), 1}});
  work.flush();
  work.returned(0);
  expect(work.next() == nullptr && work.failed(), "nothing where there is no file, and nothing after it");

  work.clear();
  work.discard(0, 4096);
  work.returned(-EOPNOTSUPP);
  expect(work.next() == nullptr && !work.failed(), "a discard may do nothing");
  work.discard(0, 4096);
  work.returned(-EIO);
  expect(work.failed(), "but fail");

  work.clear();
  work.write_zeroes(512, 200'000, true);
  expect((work.next()->flags & FALLOC_FL_PUNCH_HOLE) != 0, "a hole");
  work.returned(-EOPNOTSUPP);
  expect((work.next()->flags & FALLOC_FL_ZERO_RANGE) != 0, "zeroed room");
  work.returned(-EOPNOTSUPP);
  expect(work.next()->kind == Call::Kind::write && work.next()->offset == 512 && total(*work.next()) == 200'000, "written");
  const auto* const zero = static_cast<const std::byte*>(work.next()->pieces[0].iov_base);
  expect(std::all_of(zero, zero + work.next()->pieces[0].iov_len, [](std::byte b) { return b == std::byte{0}; }), "zeroes");
  work.returned(200'000);
  expect(work.next() == nullptr && !work.failed(), "done");
}

// A kernel that has them lets them be bound, too.
void need_rings() {
  io_uring_params parameters{};
  const Descriptor ring(static_cast<int>(::syscall(SYS_io_uring_setup, 1, &parameters)));
  need(ring || (errno != ENOSYS && errno != EPERM), "io_uring, which this kernel lacks or forbids");
  constexpr std::array<uint8_t, 1> read{IORING_OP_READV};
  expect(os::IoRing::make(Descriptor(::memfd_create("file", MFD_CLOEXEC)).get(), read) != nullptr, "a ring");
}

void ring_is_bound() {
  need_rings();
  const Descriptor file(::memfd_create("file", MFD_CLOEXEC));
  os::checked(::ftruncate(file.get(), 4096), "ftruncate");
  constexpr std::array<uint8_t, 1> operations{IORING_OP_READV};
  const auto ring = os::IoRing::make(file.get(), operations);
  expect(ring->entries() == 256, "entries");
  std::array<std::byte, 16> bytes{};
  const iovec piece{bytes.data(), bytes.size()};
  const auto result_of = [&](uint8_t operation) {
    io_uring_sqe call{};
    call.opcode = operation;
    call.addr = reinterpret_cast<uintptr_t>(&piece);
    call.len = 1;
    ring->add(call, 77);
    expect(ring->submit() == 0, "handed over");
    std::optional<os::IoRing::Completion> out;
    eventually([&] { return (out = ring->take()).has_value(); }, "it completes");
    expect(out->tag == 77, "the tag");
    return out->result;
  };
  expect(result_of(IORING_OP_READV) == 16, "what it was made for");
  for (const uint8_t other : {IORING_OP_WRITEV, IORING_OP_OPENAT, IORING_OP_SOCKET, IORING_OP_CONNECT, IORING_OP_NOP}) {
    expect(result_of(other) == -EACCES || result_of(other) == -EINVAL, "operation " + std::to_string(other));
  }
  const int fd = file.get();
  expect(::syscall(SYS_io_uring_register, ring->fd(), IORING_REGISTER_FILES_UPDATE, &fd, 1) < 0 && errno == EACCES, "no other file");
  expect(!ring->take_back() && !ring->take(), "nothing is left");
  io_uring_sqe call{};
  call.opcode = IORING_OP_READV;
  ring->add(call, 1);
  ring->add(call, 2);
  expect(ring->take_back() == 2 && ring->take_back() == 1 && !ring->take_back(), "what was not handed over comes back");
  expect(result_of(IORING_OP_READV) == 16, "and the ring goes on");
}

// O_NONBLOCK, which a ring takes for a wish on filesystems that cannot but wait.
void without_waiting() {
  const Descriptor file(os::checked(::open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC | O_NONBLOCK, 0600), "open"));
  const std::vector<std::byte> content(sector_bytes * 8, std::byte{3});
  expect(::write(file.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()), "write");
  FrontEnd front(std::make_shared<BlkDevice>(options(Descriptor(::dup(file.get())), false, "")));
  reads(front);
}

}  // namespace

std::vector<Case> blk_cases() {
  std::vector<Case> both{
      {"blk: read and write", read_and_write},
      {"blk: many requests at a time", many_at_a_time},
      {"blk: stopped with requests under way", stopped_under_way},
      {"blk: odd framing", odd_framing},
      {"blk: more pieces than one call takes", many_pieces},
      {"blk: outside the disk", outside},
      {"blk: a file that has become shorter", shortened},
      {"blk: read-only", read_only},
      {"blk: discard", discard},
      {"blk: write zeroes", write_zeroes},
      {"blk: broken segments", bad_segments},
      {"blk: features that were not accepted", not_accepted},
      {"blk: identity", identity},
      {"blk: broken requests", bad_requests},
      {"blk: a request beyond all measure", huge_request},
      {"blk: configuration", configuration},
      {"blk: options that are refused", refused_options},
  };
  const auto make = [] {
    Descriptor file(::memfd_create("disk", MFD_CLOEXEC));
    const std::vector<std::byte> content(sector_bytes * 8, std::byte{3});
    expect(::write(file.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()), "write");
    return std::make_shared<BlkDevice>(options(std::move(file), false, ""));
  };
  add_breakages(both, "blk", 0, make, reads);
  std::vector<Case> out{
      {"blk: what follows a call", work_goes_on},
      {"blk: a ring takes nothing but its calls", ring_is_bound},
      {"blk: descriptor that does not wait", without_waiting},
  };
  for (const Case& one : both) {
    out.push_back({one.name + ", by ring", [run = one.run] {
                     need_rings();
                     run();
                   }});
    out.push_back({one.name + ", by threads", [run = one.run] {
                     by_ring = false;
                     run();
                   }});
  }
  return out;
}

}  // namespace tskata::testing
