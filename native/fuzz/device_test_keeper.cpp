// The keeper of handles against a file server that a guest has taken over: it gives out nothing that was not sent to it, and what breaks the
// protocol ends the keeper in order, not by a crash.
#include <fcntl.h>
#include <sys/wait.h>

#include "fuzz/fs_guest.h"
#include "keeper/protocol.h"
#include "linux/fd_passing.h"

namespace tskata::testing {

namespace {

using keeper::Answer;
using keeper::Call;

class Keeper {
 public:
  Keeper() {
    std::array<int, 2> ends{};
    os::checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
    child_ = os::checked(::fork(), "fork");
    if (child_ == 0) serve(ends);
    ::close(ends[1]);
    socket_.reset(ends[0]);
  }
  ~Keeper() {
    socket_.reset();
    if (child_ > 0) ::waitpid(child_, nullptr, 0);
  }
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  void tell(Call call, uint32_t number, uint64_t mount, std::span<const int> fds = {}) {
    const keeper::Request request{call, number, mount};
    os::send_packet(socket_.get(), std::as_bytes(std::span(&request, 1)), fds);
  }
  Answer ask(Call call, uint32_t number, uint64_t mount, std::span<const int> fds = {}) {
    tell(call, number, mount, fds);
    return answer();
  }
  Answer answer() {
    os::Packet packet = os::receive_packet(socket_.get());
    Answer out{};
    expect(packet.bytes.size() == sizeof out, "an answer");
    std::memcpy(&out, packet.bytes.data(), sizeof out);
    expect(out.error == 0 || packet.fds.empty(), "a refusal has no descriptor");
    opened_ = std::move(packet.fds);
    return out;
  }
  void send(std::span<const std::byte> bytes, std::span<const int> fds = {}) { os::send_packet(socket_.get(), bytes, fds); }
  void shut() { (void)::shutdown(socket_.get(), SHUT_RDWR); }
  // Of the last answer.
  const std::vector<os::Descriptor>& opened() const { return opened_; }
  size_t descriptors() const {
    return static_cast<size_t>(std::distance(files::directory_iterator("/proc/" + std::to_string(child_) + "/fd"), files::directory_iterator{}));
  }
  // By itself, in order.
  void expect_end() {
    int status = -1;
    eventually([&] { return ::waitpid(child_, &status, WNOHANG) == child_; }, "the keeper ends");
    child_ = -1;
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "in order");
  }

 private:
  // As tskata-jail has it.
  [[noreturn]] static void serve(const std::array<int, 2>& ends) {
    ::close(ends[0]);
    try {
      keeper::keep_handles(std::span(&ends[1], 1));
    } catch (const std::system_error&) {
      // told on standard error
    }
    ::_exit(0);
  }

  pid_t child_;
  os::Descriptor socket_;
  std::vector<os::Descriptor> opened_;
};

struct Files {
  Files() {
    std::ofstream(folder / "file") << "x";
    top.reset(os::checked(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open"));
    file.reset(os::checked(::open((folder / "file").c_str(), O_PATH | O_CLOEXEC), "open"));
    elsewhere.reset(os::checked(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open"));
    proc.reset(os::checked(::open("/proc/self/status", O_PATH | O_CLOEXEC), "open"));
    std::array<int, 2> ends{};
    os::checked(::pipe2(ends.data(), O_CLOEXEC), "pipe2");
    pipe.reset(ends[0]);
    ::close(ends[1]);
  }

  TemporaryFolder folder;
  os::Descriptor top, file, elsewhere, proc, pipe;
};

// All of these: handles are for CAP_DAC_READ_SEARCH.

void numbers_never_given() {
  need_root();
  const Files have;
  Keeper keeper;
  expect(keeper.ask(Call::anchor, 0, 1, std::array{have.top.get()}).error == 0, "a mount");
  const Answer kept = keeper.ask(Call::keep, 0, 1, std::array{have.file.get()});
  expect(kept.error == 0 && kept.number != 0, "a file");
  for (const uint32_t number : {0u, kept.number + 1, 77u, UINT32_MAX}) {
    expect(keeper.ask(Call::open, number, 1).error == ENOENT && keeper.opened().empty(), "open");
    expect(keeper.ask(Call::same, number, 1, std::array{have.file.get()}).error == ENOENT, "same");
    keeper.tell(Call::drop, number, 1);
  }
  expect(keeper.ask(Call::open, kept.number, 0).error == 0 && keeper.opened().size() == 1, "the one that was given holds");
  expect((::fcntl(keeper.opened().front().get(), F_GETFL) & O_PATH) != 0, "a descriptor that reads nothing");
  keeper.tell(Call::clear, 0, 0);
  expect(keeper.ask(Call::open, kept.number, 1).error == ENOENT, "nor is one left from the session before");
}

void descriptors_missing_or_too_many() {
  need_root();
  const Files have;
  Keeper keeper;
  expect(keeper.ask(Call::anchor, 0, 1, std::array{have.top.get()}).error == 0, "a mount");
  const size_t before = keeper.descriptors();
  const std::array two{have.file.get(), have.top.get()};
  for (const Call call : {Call::anchor, Call::keep}) {
    expect(keeper.ask(call, 0, 1).error == EINVAL && keeper.ask(call, 0, 1, two).error == EINVAL, "one, not more");
  }
  const Answer kept = keeper.ask(Call::keep, 0, 1, std::array{have.file.get()});
  expect(keeper.ask(Call::same, kept.number, 1).error == EINVAL, "same without a file");
  for (int i = 0; i < 50; ++i) {
    expect(keeper.ask(Call::open, kept.number, 1, two).error == 0, "open wants none");
    keeper.tell(Call::leave, 0, 7, two);
    keeper.tell(static_cast<Call>(1000 + i), 0, 1, two);
  }
  expect(keeper.ask(Call::open, kept.number, 1).error == 0, "open");
  eventually([&] { return keeper.descriptors() == before; }, "what nobody asked for is closed");
}

void wrong_mounts() {
  need_root();
  const Files have;
  Keeper keeper;
  expect(keeper.ask(Call::keep, 0, 1, std::array{have.file.get()}).error == ENOENT, "a mount that was never told of");
  for (const int fd : {have.proc.get(), have.pipe.get()}) {
    expect(keeper.ask(Call::anchor, 0, 1, std::array{fd}).error != 0, "a filesystem without handles");
    expect(keeper.ask(Call::keep, 0, 1, std::array{have.file.get()}).error == ENOENT, "is none");
  }
  expect(keeper.ask(Call::anchor, 0, 1, std::array{have.top.get()}).error == 0, "a mount");
  expect(keeper.ask(Call::keep, 0, 1, std::array{have.elsewhere.get()}).error == EXDEV, "a file of another");
  expect(keeper.ask(Call::keep, 0, 1, std::array{have.proc.get()}).error != 0, "a file without a handle");
  const uint32_t number = keeper.ask(Call::keep, 0, 1, std::array{have.file.get()}).number;
  // The same name for another mount: a handle means another file there.
  (void)keeper.ask(Call::anchor, 0, 1, std::array{have.elsewhere.get()});
  expect(keeper.ask(Call::open, number, 1).error == 0, "open");
  struct stat wanted {
  }, found{};
  os::checked(::fstat(have.file.get(), &wanted), "fstat");
  os::checked(::fstat(keeper.opened().front().get(), &found), "fstat");
  expect(wanted.st_dev == found.st_dev && wanted.st_ino == found.st_ino, "it is the file it was made of");
}

void odd_packets() {
  need_root();
  const Files have;
  for (const size_t bytes : {1u, 15u, 17u, 4096u, 5000u}) {
    Keeper keeper;
    keeper.send(std::vector<std::byte>(bytes));
    keeper.expect_end();
  }
  Keeper keeper;
  for (uint32_t call = 7; call < 200; ++call) keeper.tell(static_cast<Call>(call), call, call);
  expect(keeper.ask(Call::anchor, 0, 1, std::array{have.top.get()}).error == 0, "calls that there are not have no answer");
}

void floods() {
  need_root();
  const Files have;
  Keeper keeper;
  for (int i = 0; i < 100'000; ++i) keeper.tell(i % 3 == 0 ? Call::drop : i % 3 == 1 ? Call::leave : Call::clear, static_cast<uint32_t>(i), 1);
  expect(keeper.ask(Call::anchor, 0, 1, std::array{have.top.get()}).error == 0, "it serves still");
  size_t kept = 0;
  for (int i = 0; i < 20'000; ++i) kept += keeper.ask(Call::keep, 0, 1, std::array{have.file.get()}).error == 0 ? 1 : 0;
  expect(kept == 20'000 && keeper.descriptors() < 64, "handles hold no descriptors");
}

// A server that reads no answers holds up nobody but itself, and its end is the keeper's.
void unread_answers() {
  need_root();
  Keeper keeper;
  const keeper::Request request{Call::open, 5, 0};
  std::jthread flood([&] {
    try {
      for (int i = 0; i < 10'000; ++i) keeper.send(std::as_bytes(std::span(&request, 1)));
    } catch (const std::system_error&) {
      // the socket was shut down
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  keeper.shut();
  flood.join();
  keeper.expect_end();
}

// Two servers of one keeper: neither knows the other's numbers, and the end of one is not the other's.
void two_servers() {
  need_root();
  const Files have;
  std::array<std::array<int, 2>, 2> pairs{};
  for (auto& pair : pairs) os::checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), "socketpair");
  const pid_t child = os::checked(::fork(), "fork");
  if (child == 0) {
    for (const auto& pair : pairs) ::close(pair[0]);
    keeper::keep_handles(std::array{pairs[0][1], pairs[1][1]});
    ::_exit(0);
  }
  for (const auto& pair : pairs) ::close(pair[1]);
  std::array<os::Descriptor, 2> servers{os::Descriptor(pairs[0][0]), os::Descriptor(pairs[1][0])};
  const auto ask = [&](size_t server, Call call, uint32_t number, int fd) {
    const keeper::Request request{call, number, 1};
    os::send_packet(servers[server].get(), std::as_bytes(std::span(&request, 1)), std::span(&fd, fd >= 0 ? 1 : 0));
    const os::Packet packet = os::receive_packet(servers[server].get());
    expect(packet.bytes.size() == sizeof(Answer), "an answer");
    Answer out{};
    std::memcpy(&out, packet.bytes.data(), sizeof out);
    return out;
  };
  for (size_t server = 0; server < 2; ++server) expect(ask(server, Call::anchor, 0, have.top.get()).error == 0, "a mount");
  const Answer kept = ask(0, Call::keep, 0, have.file.get());
  expect(kept.error == 0 && ask(1, Call::open, kept.number, -1).error == ENOENT, "a number is its own server's");
  const Answer other = ask(1, Call::keep, 0, have.file.get());
  const std::array<std::byte, 3> odd{};
  os::send_packet(servers[0].get(), odd, {});
  expect(os::receive_packet(servers[0].get()).bytes.empty(), "who breaks the protocol is left");
  expect(other.error == 0 && ask(1, Call::open, other.number, -1).error == 0, "the other is served still");
  servers[1].reset();
  int status = -1;
  eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; }, "the keeper ends with the last");
  expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "in order");
}

}  // namespace

std::vector<Case> keeper_cases() {
  return {
      {"keeper: numbers never given", numbers_never_given},
      {"keeper: descriptors missing or too many", descriptors_missing_or_too_many},
      {"keeper: wrong mounts", wrong_mounts},
      {"keeper: packets of another size, calls that there are not", odd_packets},
      {"keeper: floods", floods},
      {"keeper: answers that nobody reads", unread_answers},
      {"keeper: two file servers", two_servers},
  };
}

}  // namespace tskata::testing
