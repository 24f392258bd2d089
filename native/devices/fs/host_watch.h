// Changes that the host makes to the folders and files of volumes which the guest knows, in their order.
//
// Two of the kernel's watchers stand on each folder, since neither tells all. inotify tells everything in order, but not whose doing it was, and
// what the file server does for the guest is no news there. fanotify tells which process, but merges events of one name, so that their order is lost:
// it is asked only whether anybody else did something of that kind to that name, and of a rename whether both its folders are watched. Where both
// did at the same time the event may be told once too often; none is left out.
#pragma once
#include <sys/fanotify.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "linux/descriptor.h"

namespace tskata::devices::fs {

enum class ChangeKind : uint8_t { create, remove, rename, modify, attributes, close_write };

// One change as inotify(7) tells it. An empty name is the watched node itself (a volume's own folder or file). A name that came from, or went to,
// where nobody watches has `outside` for that folder and no name.
struct Change {
  static constexpr uint64_t outside = 0;

  ChangeKind kind = ChangeKind::create;
  bool directory = false;  // what the name is of
  uint64_t folder = outside;
  std::string name;
  uint64_t new_folder = outside;  // of a rename
  std::string new_name;

  bool operator==(const Change&) const = default;
};

class HostWatch {
 public:
  using Report = std::function<void(std::vector<Change>)>;

  // Without the kernel's watchers (old kernel, or the host's limits are reached) nothing is watched, which is said once on stderr. When so many
  // changes are kept for a guest that does not ask for them, further ones stay in the kernel's queues, which are bounded.
  explicit HostWatch(size_t most_kept = 100'000);
  ~HostWatch();
  HostWatch(const HostWatch&) = delete;
  HostWatch& operator=(const HostWatch&) = delete;

  // Watches what the O_PATH descriptor is of. `top`: a volume's own folder or file, whose own changes no folder above tells.
  void add(uint64_t node, uint64_t mount, int path, bool top);
  // Without a descriptor fanotify's mark stays until the inode goes; what it tells then is of nobody's watch.
  void remove(uint64_t node, int path);
  void clear();

  // Gives the next changes, at most `most`, to `report` once: now, or as soon as there are some, from a thread of its own.
  void next(size_t most, Report report);

 private:
  struct Watcher {
    uint64_t node;
    uint64_t mount;
    bool top;
  };
  struct Watched {
    std::string handle;  // as fanotify names it
    uint64_t marked = 0;
    std::vector<Watcher> watchers;
  };
  enum class Author { own, foreign, unknown };
  // The other half of a rename that takes a name away.
  enum class Mate { comes, none, unknown };
  struct Event {
    int watch;
    uint32_t mask;
    uint32_t cookie;
    std::string name;
    std::chrono::steady_clock::time_point read;
    // Once known, they stay: fanotify's word is not kept as long as an event may wait.
    Author author = Author::unknown;
    Mate mate = Mate::unknown;
  };
  // What fanotify has told of a name: kinds of changes, and what became of a rename that took it away. Of several those within what is watched
  // count: an event waits too long rather than being torn.
  struct Authors {
    uint32_t own = 0;
    uint32_t foreign = 0;
    Mate mate = Mate::unknown;
    uint64_t round = 0;
  };

  using Watches = std::unordered_map<int, Watched>;

  bool mark(const std::string& name, uint64_t& mask);
  void drop(Watches::iterator watched);
  void run();
  bool is_full();
  bool read_round();
  bool read_events();
  void read_authors();
  void hear(const fanotify_event_metadata& event, const char* bytes);
  const Authors* authors_of(const Event& event) const;
  Author author(const Event& event, const Authors* told) const;
  static std::chrono::milliseconds wait_for(Mate mate);
  void tell(std::vector<Event> events);
  void tell_one(const Event& event);
  void tell_rename(const Event* from, const Event* to);
  void say_once(const char* what, int error);
  void deliver(std::unique_lock<std::mutex> lock);

  const size_t most_kept_;
  os::Descriptor inotify_, fanotify_, stop_;
  std::mutex mutex_;  // what follows
  Watches watches_;
  std::unordered_map<uint64_t, int> by_node_;
  std::unordered_set<std::string> handles_;  // of what is watched
  std::unordered_map<std::string, Authors> authors_;
  std::vector<Event> events_;
  std::deque<Change> changes_;
  uint64_t round_ = 0;
  uint64_t authors_lost_ = 0;  // up to this round
  bool said_ = false;
  bool hears_renames_ = true;  // FAN_RENAME, Linux 5.17
  size_t most_ = 0;
  Report report_;
  std::thread thread_;
};

}  // namespace tskata::devices::fs
