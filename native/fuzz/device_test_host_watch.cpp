// Changes that the host makes to volumes, as the file server hears of them: whose they were and how many are kept for a guest that does not ask.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "devices/fs/host_watch.h"
#include "fuzz/device_test.h"

namespace tskata::testing {

namespace {

using devices::fs::Change;
using devices::fs::ChangeKind;
using devices::fs::HostWatch;

constexpr uint64_t node = 7;
constexpr uint64_t mount = 1;

// A watched folder, and another process that changes it.
class Watched {
 public:
  explicit Watched(size_t most_kept = 1000) : watch_(most_kept) {
    const os::Descriptor path(os::checked(::open(folder_.path().c_str(), O_PATH | O_CLOEXEC), "open"));
    watch_.add(node, mount, path.get(), true);
  }

  void by_another(const std::function<void(const Watched&)>& work) {
    const pid_t child = os::checked(::fork(), "fork");
    if (child == 0) {
      work(*this);
      ::_exit(0);
    }
    int status = -1;
    expect(::waitpid(child, &status, 0) == child && status == 0, "the other process has done its work");
  }

  // Events: create, close_write, remove.
  void touch(const std::string& name) const {
    const std::string path = folder_ / name;
    const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ::close(fd);
    ::unlink(path.c_str());
  }

  // Of one file: its name changes to and fro.
  void rename_often(int times) const {
    const std::string names[] = {folder_ / "one", folder_ / "two"};
    ::close(::open(names[0].c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    for (int i = 0; i < times; ++i) ::rename(names[i % 2].c_str(), names[(i + 1) % 2].c_str());
  }

  // What was told until a removal of the name.
  std::vector<Change> until_removed(const std::string& name) {
    std::vector<Change> out;
    for (;;) {
      std::promise<std::vector<Change>> told;
      watch_.next(1000, [&told](std::vector<Change> changes) { told.set_value(std::move(changes)); });
      auto more = told.get_future();
      expect(more.wait_for(std::chrono::seconds(60)) == std::future_status::ready, "changes are told");
      for (Change& change : more.get()) {
        out.push_back(std::move(change));
        if (out.back().kind == ChangeKind::remove && out.back().name == name) return out;
      }
    }
  }

 private:
  TemporaryFolder folder_;
  HostWatch watch_;
};

void own_changes_are_no_news() {
  Watched watched;
  watched.touch("own");
  watched.by_another([](const Watched& folder) { folder.touch("other"); });
  const std::vector<Change> told = watched.until_removed("other");
  const std::vector<Change> expected = {{ChangeKind::create, false, node, "other", Change::outside, {}},
                                        {ChangeKind::close_write, false, node, "other", Change::outside, {}},
                                        {ChangeKind::remove, false, node, "other", Change::outside, {}}};
  expect(told == expected, "the other's changes alone, in their order");
}

// The kernel tells the two halves of a rename one after the other, and whoever renames may lose the processor in between: here to a thread on each.
void halves_of_a_rename_stay_together() {
  constexpr int renames = 2000;
  Watched watched(4 * renames);
  std::vector<std::jthread> others;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i) {
    others.emplace_back([](const std::stop_token& told) {
      while (!told.stop_requested()) continue;
    });
  }
  watched.by_another([](const Watched& folder) {
    (void)::nice(19);
    folder.rename_often(renames);
    folder.touch("last");
  });
  const std::vector<Change> told = watched.until_removed("last");
  const auto whole = std::ranges::count_if(told, [](const Change& one) { return one.kind == ChangeKind::rename && one.folder == one.new_folder; });
  const auto halves = std::ranges::count_if(told, [](const Change& one) { return one.kind == ChangeKind::rename && one.folder != one.new_folder; });
  expect(whole == renames && halves == 0, std::to_string(whole) + " whole, " + std::to_string(halves) + " halves");
}

void unasked_changes_are_bounded() {
  constexpr size_t pieces = 50;  // that the kernel's queue has room for each: what is missing then was left for its number
  constexpr size_t files = 1000;
  Watched watched;
  for (size_t piece = 0; piece < pieces; ++piece) {
    watched.by_another([](const Watched& folder) {
      for (size_t i = 0; i < files; ++i) folder.touch("name-" + std::to_string(i % 50));
    });
  }
  // Again and again: until there is room for it.
  const std::jthread later([&](const std::stop_token& told) {
    while (!told.stop_requested()) {
      watched.by_another([](const Watched& folder) { folder.touch("last"); });
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  const size_t told = watched.until_removed("last").size();
  expect(told >= 1000 && told < pieces * files * 3 / 2, "so many are kept: " + std::to_string(told));
}

}  // namespace

std::vector<Case> host_watch_cases() {
  return {
      {"host watch: what the file server does itself is no news", own_changes_are_no_news},
      {"host watch: a rename within what is watched is told as one, whatever its process waits for", halves_of_a_rename_stay_together},
      {"host watch: changes that nobody asks for are kept up to a number", unasked_changes_are_bounded},
  };
}

}  // namespace tskata::testing
