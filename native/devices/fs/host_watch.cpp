// inotify for the order, fanotify for the author.
#include "devices/fs/host_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "linux/proc_path.h"
#include "jail/jail.h"

namespace tskata::devices::fs {

namespace {

// The two name kinds by the same bits.
constexpr uint32_t kinds = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE;
static_assert(kinds == (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO | FAN_MODIFY | FAN_ATTRIB | FAN_CLOSE_WRITE));
constexpr uint32_t folder_mask = kinds | IN_EXCL_UNLINK;
constexpr uint32_t file_mask = IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE;

constexpr size_t buffer_bytes = 64 * 1024;
constexpr int most_reads = 64;  // of one round: others want the lock, too
constexpr int wait_ms = 1;      // between looks for what is waited for
constexpr int full_wait_ms = 20;
// The kernel tells a rename's halves one after the other. Whoever renames may lose the processor in between, and the kernel's queue may be full.
constexpr std::chrono::milliseconds mate_wait{2000};
constexpr std::chrono::milliseconds possible_mate_wait{50};
constexpr std::chrono::milliseconds longest_wait{200};  // then it is taken for the host's

// A file as fanotify names it: its filesystem's id and its handle there.
std::string key_of(const void* filesystem, const file_handle& handle) {
  std::string out(static_cast<const char*>(filesystem), sizeof(__kernel_fsid_t));
  out.append(reinterpret_cast<const char*>(&handle), sizeof handle);
  out.append(reinterpret_cast<const char*>(handle.f_handle), handle.handle_bytes);
  return out;
}

// Empty where the filesystem has no handles.
std::string key_of(int path) {
  struct statfs facts {};
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> room{};
  auto& handle = *reinterpret_cast<file_handle*>(room.data());
  handle.handle_bytes = MAX_HANDLE_SZ;
  int mount = 0;
  if (::fstatfs(path, &facts) != 0 || ::name_to_handle_at(path, "", &handle, &mount, AT_EMPTY_PATH) != 0) return {};
  return key_of(&facts.f_fsid, handle);
}

// A folder's own attributes are told of it alone, inotify tells them of its name in the folder above as well: there it is asked whether anybody has
// changed any folder's.
constexpr const char* any_folder = "/";

std::string with_name(const std::string& folder, const std::string& name) { return folder + '/' + name; }

}  // namespace

HostWatch::HostWatch(size_t most_kept)
    : most_kept_(most_kept),
      inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)),
      fanotify_(inotify_ ? ::fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_NONBLOCK | FAN_CLOEXEC, 0) : -1) {
  if (!fanotify_) {
    say_once(inotify_ ? "fanotify_init" : "inotify_init1", errno);
    return;
  }
  stop_.reset(os::checked(::eventfd(0, EFD_CLOEXEC), "eventfd"));
  thread_ = jail::start_thread(jail::Role::device, [this] { run(); });
}

HostWatch::~HostWatch() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void HostWatch::say_once(const char* what, int error) {
  if (!std::exchange(said_, true))
    std::fprintf(stderr, "fs: not every change of the host's reaches inotify in the guest: %s: %s\n", what, std::strerror(error));
}

// With renames where it is a folder and the kernel knows them; `mask` is what it has become.
bool HostWatch::mark(const std::string& name, uint64_t& mask) {
  const auto add = [&](uint64_t what) { return ::fanotify_mark(fanotify_.get(), FAN_MARK_ADD, what, AT_FDCWD, name.c_str()) == 0; };
  if (hears_renames_ && (mask & FAN_ONDIR) != 0) {
    if (add(mask | FAN_RENAME)) {
      mask |= FAN_RENAME;
      return true;
    }
    if (errno != EINVAL) return false;
    hears_renames_ = false;
  }
  return add(mask);
}

void HostWatch::add(uint64_t node, uint64_t mount, int path, bool top) {
  if (!fanotify_) return;
  struct stat facts {};
  if (::fstat(path, &facts) != 0 || (!S_ISDIR(facts.st_mode) && !(top && S_ISREG(facts.st_mode)))) return;
  const bool folder = S_ISDIR(facts.st_mode);
  const std::lock_guard lock(mutex_);
  std::string handle = key_of(path);
  uint64_t mask = folder ? uint64_t{kinds} | FAN_EVENT_ON_CHILD | FAN_ONDIR : uint64_t{file_mask};
  const std::string name = os::proc_path(path);
  // The author's watcher first: no event without one.
  if (handle.empty() || !mark(name, mask)) return say_once("fanotify_mark", errno);
  const int watch = ::inotify_add_watch(inotify_.get(), name.c_str(), folder ? folder_mask : file_mask);
  if (watch < 0) return say_once("inotify_add_watch", errno);
  Watched& watched = watches_[watch];  // the kernel has one an inode, whichever mount it is seen by
  handles_.insert(handle);
  watched.handle = std::move(handle);
  watched.marked = mask;
  watched.watchers.push_back({node, mount, top});
  by_node_[node] = watch;
}

void HostWatch::remove(uint64_t node, int path) {
  const std::lock_guard lock(mutex_);
  const auto found = by_node_.find(node);
  if (found == by_node_.end()) return;
  const int watch = found->second;
  by_node_.erase(found);
  const auto watched = watches_.find(watch);
  if (watched == watches_.end()) return;
  std::erase_if(watched->second.watchers, [node](const Watcher& one) { return one.node == node; });
  if (!watched->second.watchers.empty()) return;
  if (path >= 0) (void)::fanotify_mark(fanotify_.get(), FAN_MARK_REMOVE, watched->second.marked, AT_FDCWD, os::proc_path(path).c_str());
  (void)::inotify_rm_watch(inotify_.get(), watch);
  drop(watched);
}

void HostWatch::drop(Watches::iterator watched) {
  handles_.erase(watched->second.handle);
  watches_.erase(watched);
}

void HostWatch::clear() {
  const std::lock_guard lock(mutex_);
  watches_.clear();
  handles_.clear();
  by_node_.clear();
  events_.clear();
  changes_.clear();
}

void HostWatch::next(size_t most, Report report) {
  std::unique_lock lock(mutex_);
  most_ = most;
  report_ = std::move(report);
  deliver(std::move(lock));
}

void HostWatch::deliver(std::unique_lock<std::mutex> lock) {
  if (!report_ || changes_.empty()) return;
  const auto end = changes_.begin() + static_cast<ptrdiff_t>(std::min(most_, changes_.size()));
  std::vector<Change> out(std::make_move_iterator(changes_.begin()), std::make_move_iterator(end));
  changes_.erase(changes_.begin(), end);
  const Report report = std::exchange(report_, nullptr);
  lock.unlock();
  report(std::move(out));
}

void HostWatch::run() {
  bool waiting = false;
  for (;;) {
    const bool full = is_full();
    std::array<pollfd, 2> polled{{{stop_.get(), POLLIN, 0}, {full ? -1 : inotify_.get(), POLLIN, 0}}};
    (void)::poll(polled.data(), polled.size(), full ? full_wait_ms : waiting ? wait_ms : -1);
    if (polled[0].revents != 0) return;
    if (!full) waiting = read_round();
  }
}

bool HostWatch::is_full() {
  const std::lock_guard lock(mutex_);
  return changes_.size() >= most_kept_;
}

// Whether something waits.
bool HostWatch::read_round() {
  std::unique_lock lock(mutex_);
  ++round_;
  const bool empty = read_events();
  // After the events: whoever caused one of them is among the authors.
  read_authors();
  tell(std::exchange(events_, {}));
  // Events of authors heard since the last read come with the next.
  if (empty) std::erase_if(authors_, [this](const auto& one) { return one.second.round + 1 < round_; });
  const bool waiting = !events_.empty();
  deliver(std::move(lock));
  return waiting;
}

// Whether everything was read.
bool HostWatch::read_events() {
  alignas(inotify_event) std::array<char, buffer_bytes> buffer;
  const auto now = std::chrono::steady_clock::now();
  for (int i = 0; i < most_reads; ++i) {
    const ssize_t got = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (got <= 0) return true;
    for (const char* at = buffer.data(); at < buffer.data() + got;) {
      const auto* const event = reinterpret_cast<const inotify_event*>(at);
      at += sizeof *event + event->len;
      if ((event->mask & IN_Q_OVERFLOW) != 0) say_once("its queue (fs.inotify.max_queued_events) was full", EOVERFLOW);
      else events_.push_back({event->wd, event->mask, event->cookie, event->len > 0 ? std::string(event->name) : std::string(), now});
    }
  }
  return false;
}

void HostWatch::read_authors() {
  alignas(fanotify_event_info_fid) std::array<char, buffer_bytes> buffer;
  for (;;) {
    ssize_t got = ::read(fanotify_.get(), buffer.data(), buffer.size());
    if (got <= 0) return;
    // Events come at multiples of four: too few for the structure's own alignment, so it is copied.
    fanotify_event_metadata event{};
    for (const char* at = buffer.data(); got >= static_cast<ssize_t>(sizeof event); at += event.event_len, got -= event.event_len) {
      std::memcpy(&event, at, sizeof event);
      if (event.event_len < sizeof event || event.event_len > got) break;
      hear(event, at);
    }
  }
}

void HostWatch::hear(const fanotify_event_metadata& event, const char* bytes) {
  // Nobody knows whose the events up to the next round are: they are told, the guest's own among them.
  if ((event.mask & FAN_Q_OVERFLOW) != 0) authors_lost_ = round_ + 1;
  const bool own = event.pid == ::getpid();
  const auto note = [&](std::string key) -> Authors& {
    Authors& authors = authors_[std::move(key)];
    (own ? authors.own : authors.foreign) |= static_cast<uint32_t>(event.mask);
    authors.round = round_;
    return authors;
  };
  Authors* moved = nullptr;
  for (size_t at = event.metadata_len; at + sizeof(fanotify_event_info_fid) <= event.event_len;) {
    const auto& info = *reinterpret_cast<const fanotify_event_info_fid*>(bytes + at);
    if (info.hdr.len == 0) return;
    const auto& handle = *reinterpret_cast<const file_handle*>(info.handle);
    const auto name_in_folder = [&] { return std::string(reinterpret_cast<const char*>(handle.f_handle) + handle.handle_bytes); };
    if (info.hdr.info_type == FAN_EVENT_INFO_TYPE_OLD_DFID_NAME) {
      moved = &note(with_name(key_of(&info.fsid, handle), name_in_folder()));
      if (moved->mate == Mate::unknown) moved->mate = Mate::none;
    } else if (info.hdr.info_type == FAN_EVENT_INFO_TYPE_NEW_DFID_NAME) {
      // The folder it comes from is told first, where that is watched. A mark may have outlived this one's watch.
      if (moved != nullptr && handles_.contains(key_of(&info.fsid, handle))) moved->mate = Mate::comes;
    } else if (info.hdr.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME) {
      const std::string name = name_in_folder();
      note(with_name(key_of(&info.fsid, handle), name == "." ? "" : name));
      if (name == ".") note(any_folder);
    } else {
      note(with_name(key_of(&info.fsid, handle), ""));
    }
    at += info.hdr.len;
  }
}

// Nothing of a folder that nobody watches any more.
const HostWatch::Authors* HostWatch::authors_of(const Event& event) const {
  const auto watched = watches_.find(event.watch);
  if (watched == watches_.end()) return nullptr;
  const bool own_of_folder = (event.mask & IN_ISDIR) != 0 && (event.mask & IN_ATTRIB) != 0 && !event.name.empty();
  const auto found = authors_.find(own_of_folder ? any_folder : with_name(watched->second.handle, event.name));
  return found == authors_.end() ? nullptr : &found->second;
}

HostWatch::Author HostWatch::author(const Event& event, const Authors* told) const {
  if (round_ <= authors_lost_) return Author::foreign;
  if (told == nullptr) return watches_.contains(event.watch) ? Author::unknown : Author::own;  // nobody's any more
  if ((told->foreign & event.mask & kinds) != 0) return Author::foreign;
  return (told->own & event.mask & kinds) != 0 ? Author::own : Author::unknown;
}

std::chrono::milliseconds HostWatch::wait_for(Mate mate) {
  switch (mate) {
    case Mate::comes: return mate_wait;
    case Mate::none: return {};
    case Mate::unknown: break;
  }
  return possible_mate_wait;
}

// Stops at an event that waits for its author or the other half of a rename: what is behind it waits, too.
void HostWatch::tell(std::vector<Event> events) {
  const auto now = std::chrono::steady_clock::now();
  for (size_t i = 0; i < events.size(); ++i) {
    Event& event = events[i];
    if ((event.mask & IN_IGNORED) != 0) {
      if (const auto gone = watches_.find(event.watch); gone != watches_.end()) drop(gone);
    }
    if ((event.mask & kinds) == 0) continue;
    const auto hold = [&] {
      events_.assign(std::make_move_iterator(events.begin() + static_cast<ptrdiff_t>(i)), std::make_move_iterator(events.end()));
    };
    const Authors* const told = authors_of(event);
    if (event.author == Author::unknown) event.author = author(event, told);
    if (event.author == Author::own) continue;
    if (event.mate == Mate::unknown && told != nullptr) event.mate = told->mate;
    if (event.author == Author::unknown && now - event.read < longest_wait) return hold();
    if ((event.mask & IN_MOVED_FROM) != 0) {
      const auto to = std::find_if(events.begin() + static_cast<ptrdiff_t>(i) + 1, events.end(),
                                   [&](const Event& other) { return (other.mask & IN_MOVED_TO) != 0 && other.cookie == event.cookie; });
      if (to == events.end() && now - event.read < wait_for(event.mate)) return hold();
      tell_rename(&event, to != events.end() ? &*to : nullptr);
      if (to != events.end()) to->mask = 0;
    } else if ((event.mask & IN_MOVED_TO) != 0) {
      tell_rename(nullptr, &event);
    } else {
      tell_one(event);
    }
  }
}

void HostWatch::tell_one(const Event& event) {
  const auto watched = watches_.find(event.watch);
  if (watched == watches_.end()) return;
  const bool directory = (event.mask & IN_ISDIR) != 0;
  ChangeKind kind = ChangeKind::create;
  if ((event.mask & IN_DELETE) != 0) kind = ChangeKind::remove;
  else if ((event.mask & IN_MODIFY) != 0) kind = ChangeKind::modify;
  else if ((event.mask & IN_ATTRIB) != 0) kind = ChangeKind::attributes;
  else if ((event.mask & IN_CLOSE_WRITE) != 0) kind = ChangeKind::close_write;
  for (const Watcher& watcher : watched->second.watchers) {
    if (!event.name.empty() || watcher.top) changes_.push_back({kind, directory, watcher.node, event.name, Change::outside, {}});
  }
}

// A folder that is shown by several mounts is a node for each: a rename is told within each.
void HostWatch::tell_rename(const Event* from, const Event* to) {
  static const std::vector<Watcher> none;
  const auto watchers = [this](const Event* event) -> const std::vector<Watcher>& {
    const auto found = event != nullptr ? watches_.find(event->watch) : watches_.end();
    return found != watches_.end() ? found->second.watchers : none;
  };
  const bool directory = ((from != nullptr ? from : to)->mask & IN_ISDIR) != 0;
  const auto mate = [](const std::vector<Watcher>& in, uint64_t mount) { return std::ranges::find(in, mount, &Watcher::mount); };
  const std::vector<Watcher>& sources = watchers(from);
  const std::vector<Watcher>& targets = watchers(to);
  for (const Watcher& source : sources) {
    const auto target = mate(targets, source.mount);
    const bool known = target != targets.end();
    changes_.push_back(
        {ChangeKind::rename, directory, source.node, from->name, known ? target->node : Change::outside, known ? to->name : std::string()});
  }
  for (const Watcher& target : targets) {
    if (mate(sources, target.mount) == sources.end()) {
      changes_.push_back({ChangeKind::rename, directory, Change::outside, {}, target.node, to->name});
    }
  }
}

}  // namespace tskata::devices::fs
