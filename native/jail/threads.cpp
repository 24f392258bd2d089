// Closing the jail on a process that has many threads, of which some are not ours.
#include "jail/jail.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "jail/capabilities.h"
#include "jail/violation.h"
#include "linux/descriptor.h"

namespace tskata::jail {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto answer_limit = std::chrono::seconds(5);

// Its handler confines the thread it runs on. Node and our relays (RTMIN + 7) use others.
int confine_signal() { return SIGRTMIN + 6; }

enum class Phase : uint8_t {
  open,     // not a jailed process
  planned,  // threads that enter wait
  closing,  // other threads are being confined
  closed,
};

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  Phase phase = Phase::open;
  Mode mode = Mode::enforce;
  std::set<pid_t> waiting;  // in enter_thread, with rights that they take care of themselves
  std::string failure;
};

State& state() {
  static State* const it = new State;  // never destroyed: threads outlive static objects
  return *it;
}

// What a thread's status shows when it has given up all: besides no capabilities, this many lists.
struct Confinement {
  unsigned long filters;
};

// For the signal's handler: set before the first signal is sent.
std::atomic<const Program*> node_program = nullptr;

std::string failed(const std::string& what, int error) { return what + ": " + std::strerror(error); }

Program program_for(Role role, Mode mode) { return mode == Mode::off ? Program{} : assemble(policy(role), mode); }

int drop_capabilities(CapabilitySet kept) {
  if (const int error = limit_bounding_set(0); error != 0) return error;
  return set_capabilities(kept, 0);
}

int load_if_any(const Program& program) { return program.empty() ? 0 : load(program); }

// Async-signal-safe. A failure shows in /proc, where close() looks.
void on_confine(int) {
  const int before = errno;
  if (drop_capabilities(0) == 0) (void)load_if_any(*node_program.load());
  errno = before;
}

void narrow(Role role, Mode mode) {
  if (const int error = load_if_any(program_for(role, mode)); error != 0) {
    throw std::system_error(error, std::generic_category(), "load the filter of the thread");
  }
}

// Lines of a thread's status in /proc, by their names; none for one that has gone.
std::map<std::string, std::string> status_of(pid_t thread) {
  std::ifstream status("/proc/self/task/" + std::to_string(thread) + "/status");
  std::map<std::string, std::string> out;
  for (std::string line; std::getline(status, line);) {
    const size_t colon = std::min(line.find(":\t"), line.size());
    out[line.substr(0, colon)] = line.substr(std::min(colon + 2, line.size()));
  }
  return out;
}

// How many lists hold for a thread: one more when it is confined than at the process's start.
unsigned long filter_count(const std::map<std::string, std::string>& status) {
  const auto found = status.find("Seccomp_filters");
  if (found == status.end()) throw std::runtime_error("/proc does not tell the number of seccomp filters: Linux 5.12 or newer is needed");
  return std::stoul(found->second);
}

// Whether a thread still has anything to give up.
bool is_unconfined(pid_t thread, const Confinement& wanted) {
  const auto status = status_of(thread);
  if (status.empty()) return false;
  for (const char* const set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    if (status.at(set).find_first_not_of('0') != std::string::npos) return true;
  }
  return status.at("NoNewPrivs") != "1" || filter_count(status) < wanted.filters;
}

std::string name_of(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

std::vector<pid_t> threads() {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc/self/task"), ::closedir);
  if (!folder) throw std::system_error(errno, std::generic_category(), "open /proc/self/task");
  std::vector<pid_t> out;
  while (const dirent* const entry = ::readdir(folder.get())) {
    if (entry->d_name[0] != '.') out.push_back(std::stoi(entry->d_name));
  }
  return out;
}

void confine_by_signal(pid_t thread, const Confinement& wanted) {
  if (::syscall(SYS_tgkill, ::getpid(), thread, confine_signal()) != 0) return;  // it has just ended
  const auto limit = Clock::now() + answer_limit;
  while (is_unconfined(thread, wanted)) {
    if (Clock::now() > limit)
      throw std::runtime_error("the thread " + std::to_string(thread) + " (" + name_of(thread) + ") did not give up its rights");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// True when there was nothing left to do. A thread that is made meanwhile by one not yet confined shows in the next turn.
bool confine_others(const std::set<pid_t>& waiting, const Confinement& wanted) {
  bool clean = true;
  for (const pid_t thread : threads()) {
    if (thread == ::gettid() || waiting.contains(thread) || !is_unconfined(thread, wanted)) continue;
    clean = false;
    confine_by_signal(thread, wanted);
  }
  return clean;
}

void install_handlers(const Program& program, Mode mode) {
  node_program = &program;
  struct sigaction action {};
  action.sa_handler = on_confine;
  action.sa_flags = SA_RESTART;
  os::checked(::sigaction(confine_signal(), &action, nullptr), "sigaction");
  if (mode == Mode::enforce) tell_violations();
}

void confine_this(const Program& program, CapabilitySet kept) {
  if (const int error = drop_capabilities(kept); error != 0) throw std::runtime_error(failed("drop the capabilities", error));
  if (const int error = load_if_any(program); error != 0) throw std::runtime_error(failed("load the filter", error));
}

// Lets those that wait confine themselves; returns when all have.
void release_waiting(State& it) {
  std::unique_lock lock(it.mutex);
  it.phase = Phase::closed;
  it.changed.notify_all();
  if (!it.changed.wait_for(lock, answer_limit, [&] { return it.waiting.empty(); }))
    throw std::runtime_error("a device's thread did not give up its rights");
  if (!it.failure.empty()) throw std::runtime_error(it.failure);
}

// A thread with rights of its own, from the jail's closing on.
void take_role(State& it, Role role, std::unique_lock<std::mutex>& lock) {
  it.changed.wait(lock, [&] { return it.phase == Phase::closed; });
  std::string failure;
  try {
    confine_this(program_for(role, it.mode), role == Role::fs_worker ? file_server_capabilities : 0);
  } catch (const std::exception& error) {
    failure = std::string("thread ") + name(role) + ": " + error.what();
  }
  if (it.failure.empty()) it.failure = failure;
  it.waiting.erase(::gettid());
  it.changed.notify_all();
}

}  // namespace

void plan() {
  const std::lock_guard lock(state().mutex);
  if (state().phase == Phase::open) state().phase = Phase::planned;
}

void close(Mode mode) {
  State& it = state();
  std::set<pid_t> waiting;
  {
    const std::lock_guard lock(it.mutex);
    if (it.phase != Phase::planned) throw std::runtime_error("the jail is not planned, or closed already");
    it.phase = Phase::closing;
    it.mode = mode;
    waiting = it.waiting;
  }
  // Without this a process of the same uid that has no capabilities either (QEMU) could open our memory by /proc, and with it take over
  // the threads that keep some.
  os::checked(::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl");
  static const Program program = program_for(Role::node, mode);
  install_handlers(program, mode);
  const Confinement wanted{filter_count(status_of(::gettid())) + (mode == Mode::off ? 0 : 1)};
  while (!confine_others(waiting, wanted)) {
  }
  confine_this(program, 0);
  release_waiting(it);
}

void enter_thread(Role role, const std::function<void()>& registered) {
  State& it = state();
  std::unique_lock lock(it.mutex);
  const Phase phase = it.phase;
  if (phase != Phase::open) (void)::pthread_setname_np(::pthread_self(), name(role));
  if (phase == Phase::planned) it.waiting.insert(::gettid());
  if (registered) registered();
  if (phase == Phase::open) return;
  if (phase == Phase::planned) return take_role(it, role, lock);
  it.changed.wait(lock, [&] { return it.phase == Phase::closed; });
  const Mode mode = it.mode;
  lock.unlock();
  narrow(role, mode);
}

std::thread start_thread(Role role, std::function<void()> body) {
  std::promise<void> registered;
  const std::future<void> known = registered.get_future();
  std::thread out([role, body = std::move(body), registered = std::move(registered)]() mutable {
    enter_thread(role, [&registered] { registered.set_value(); });
    body();
  });
  known.wait();
  return out;
}

}  // namespace tskata::jail
