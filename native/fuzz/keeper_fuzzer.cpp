// Fuzzes requests to the keeper of handles: the input is a script of packets, with descriptors of files, folders and what has no handle. What
// it opens must be a file that was sent to it before, by a descriptor that reads nothing.
#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

#include "fuzz/temporary.h"
#include "keeper/keeper.h"
#include "keeper/protocol.h"
#include "linux/fd_passing.h"

namespace {

using namespace tskata;
using keeper::Call;

// Their answers have room in the socket: nobody reads while the keeper writes.
constexpr int max_packets = 64;

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("keeper_fuzzer: %s\n", what);
  std::fflush(stdout);
  std::abort();
}

using File = std::pair<dev_t, ino_t>;

File file_of(int fd) {
  struct stat facts {};
  require(::fstat(fd, &facts) == 0, "fstat");
  return {facts.st_dev, facts.st_ino};
}

// Made once: what may be sent.
class Files {
 public:
  Files() {
    add(folder_.path(), O_RDONLY | O_DIRECTORY);
    add(folder_.path(), O_PATH);
    add(folder_ / "file", O_RDWR | O_CREAT);
    add(folder_ / "file", O_PATH);
    add(folder_ / "other", O_RDWR | O_CREAT);
    add("/", O_PATH);
    add("/tmp", O_RDONLY | O_DIRECTORY);
    add("/proc/self", O_PATH);
    add("/dev/null", O_PATH);
  }
  int pick(FuzzedDataProvider& input) const { return fds_[input.ConsumeIntegralInRange<size_t>(0, fds_.size() - 1)].get(); }

 private:
  void add(const std::string& path, int flags) { fds_.emplace_back(os::checked(::open(path.c_str(), flags | O_CLOEXEC, 0600), "open")); }

  testing::TemporaryFolder folder_;
  std::vector<os::Descriptor> fds_;
};

void send_one(int socket, const Files& have, std::set<File>& sent, FuzzedDataProvider& input) {
  std::vector<int> fds;
  for (int count = input.PickValueInArray({0, 1, 1, 1, 2, 16}); count > 0; --count) {
    fds.push_back(have.pick(input));
    sent.insert(file_of(fds.back()));
  }
  keeper::Request request{};
  request.call = static_cast<Call>(input.ConsumeIntegralInRange(0, 7));
  request.number = input.ConsumeBool() ? input.ConsumeIntegralInRange<uint32_t>(0, 8) : input.ConsumeIntegral<uint32_t>();
  request.mount = input.ConsumeIntegralInRange<uint64_t>(0, 3);
  std::vector<std::byte> bytes(sizeof request);
  std::memcpy(bytes.data(), &request, sizeof request);
  if (input.ConsumeIntegralInRange(0, 31) == 0) bytes.resize(input.PickValueInArray<size_t>({1, 15, 17, 4096, 4097}));
  os::send_packet(socket, bytes, fds);
}

void check_answers(int socket, const std::set<File>& sent) {
  for (;;) {
    os::Packet packet;
    try {
      packet = os::receive_packet(socket);
    } catch (const std::system_error&) {
      return;  // reset: requests were left unread
    }
    if (packet.bytes.empty()) return;
    keeper::Answer answer{};
    require(packet.bytes.size() == sizeof answer, "an answer of another size");
    std::memcpy(&answer, packet.bytes.data(), sizeof answer);
    require(answer.error >= 0 && packet.fds.size() <= (answer.error == 0 ? 1u : 0u), "descriptors with an error, or too many");
    for (const os::Descriptor& fd : packet.fds) {
      require((::fcntl(fd.get(), F_GETFL) & O_PATH) != 0, "a descriptor that reads");
      require(sent.contains(file_of(fd.get())), "a file that was never sent");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Files have;
  FuzzedDataProvider input(data, size);
  std::array<int, 2> ends{};
  os::checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
  const os::Descriptor server(ends[0]);
  std::set<File> sent;
  os::checked(::fcntl(server.get(), F_SETFL, O_NONBLOCK), "fcntl");
  try {
    for (int i = 0; i < max_packets && input.remaining_bytes() > 0; ++i) send_one(server.get(), have, sent, input);
  } catch (const std::system_error&) {
    // EAGAIN: large ones fill the socket sooner
  }
  ::shutdown(server.get(), SHUT_WR);
  keeper::keep_handles(std::span(&ends[1], 1));
  check_answers(server.get(), sent);
  return 0;
}
