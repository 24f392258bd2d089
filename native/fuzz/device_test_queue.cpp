// Threads that serve a queue (virtio/queue_workers.h): no buffer waits for a thread that is busy, and none is forgotten by all of them, for a driver
// that notifies only when it is asked to, as Linux does.
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <random>

#include "fuzz/device_test.h"
#include "virtio/queue_workers.h"

namespace tskata::testing {

namespace {

using std::chrono::microseconds;

constexpr uint16_t queue_size = 64;
constexpr uint64_t base = 0x1000;
constexpr uint64_t buffer_address = base + 0x2000;

struct Shape {
  unsigned threads;
  microseconds patience;
  bool event_idx;

  std::string name() const {
    return std::to_string(threads) + " threads, patience " + std::to_string(patience.count()) + " us, " + (event_idx ? "event index" : "flags");
  }
};

std::vector<Shape> shapes() {
  std::vector<Shape> out;
  for (const unsigned threads : {1u, 2u, 4u}) {
    for (const int patience : {0, 1, 300}) {
      for (const bool event_idx : {true, false}) out.push_back({threads, microseconds(patience), event_idx});
    }
  }
  return out;
}

// A driver on one side of a queue, threads on the other.
class Bench {
 public:
  Bench(const Shape& shape, std::function<void()> work, microseconds crowded = virtio::QueueReader::default_crowded)
      : shape_(shape),
        memory_(std::make_shared<virtio::GuestMemory>(std::vector<virtio::MemoryRegion>{{base, std::as_writable_bytes(std::span(bytes_))}})),
        driver_(std::as_writable_bytes(std::span(bytes_)).first(DriverQueue::bytes(queue_size)), base, queue_size),
        kick_(os::checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
        queue_(std::make_shared<virtio::Queue>(memory_, driver_.layout(), shape.event_idx ? virtio::feature_event_idx : 0, uint16_t{0})),
        reader_({queue_, kick_.get(), {}}, shape.patience, crowded) {
    for (unsigned i = 0; i < shape.threads; ++i) {
      threads_.emplace_back([this, work] {
        virtio::Chain chain;
        while (reader_.take(chain)) {
          work();
          reader_.put(chain.head, 0);
        }
      });
    }
  }
  ~Bench() {
    reader_.stop();
    for (std::thread& thread : threads_) thread.join();
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  void add(size_t count = 1) {
    const uint16_t before = driver_.available_index();
    for (size_t i = 0; i < count; ++i) driver_.add(std::array{RingDescriptor{buffer_address, 16, 0, 0}});
    if (!driver_.wants_notification(before, shape_.event_idx)) return;
    ++kicks_;
    const uint64_t one = 1;
    expect(::write(kick_.get(), &one, sizeof one) == sizeof one, "kick");
  }
  void wait_for(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      eventually([&] { return driver_.take().has_value(); }, "a buffer comes back: " + shape_.name());
    }
  }
  size_t room() const { return driver_.room(); }
  size_t kicks() const { return kicks_; }

 private:
  Shape shape_;
  std::vector<uint64_t> bytes_ = std::vector<uint64_t>(0x3000 / sizeof(uint64_t));
  std::shared_ptr<virtio::GuestMemory> memory_;
  DriverQueue driver_;
  os::Descriptor kick_;
  std::shared_ptr<virtio::Queue> queue_;
  virtio::QueueReader reader_;
  size_t kicks_ = 0;
  std::vector<std::thread> threads_;
};

// Bursts and pauses of any length around the moments when threads fall asleep.
void nothing_is_forgotten() {
  for (const Shape& shape : shapes()) {
    std::minstd_rand random(1);
    Bench bench(shape, [] {});
    for (int round = 0; round < 2000; ++round) {
      const size_t count = 1 + random() % 5;
      bench.add(count);
      if (random() % 4 == 0) bench.add();
      else if (random() % 3 == 0) std::this_thread::sleep_for(microseconds(random() % 400));
      bench.wait_for(queue_size - bench.room());
    }
  }
}

// Work that keeps all threads but one, until the gate's end.
class Gate {
 public:
  explicit Gate(unsigned most) : most_(most) {}
  void pass() {
    std::unique_lock lock(mutex_);
    if (open_ || held_ == most_) return;
    ++held_;
    changed_.wait(lock, [&] { return open_; });
  }
  void open() {
    {
      const std::lock_guard lock(mutex_);
      open_ = true;
    }
    changed_.notify_all();
  }
  unsigned held() const {
    const std::lock_guard lock(mutex_);
    return held_;
  }

 private:
  unsigned most_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  unsigned held_ = 0;
  bool open_ = false;
};

// What comes while all threads but one are busy is served, and so is what came by one notification together with what keeps them busy.
void busy_threads_keep_nothing() {
  for (const Shape& shape : shapes()) {
    Gate gate(shape.threads - 1);
    Bench bench(shape, [&gate] { gate.pass(); });
    struct Opened {  // before the threads are waited for
      Gate& gate;
      ~Opened() { gate.open(); }
    } const opened{gate};
    bench.add(shape.threads);
    bench.wait_for(1);
    eventually([&] { return gate.held() == shape.threads - 1; }, "the others are busy: " + shape.name());
    for (int i = 0; i < 50; ++i) {
      bench.add();
      bench.wait_for(1);
      if (i % 10 == 0) std::this_thread::sleep_for(microseconds(500));
    }
    bench.add(3);
    bench.wait_for(3);
    gate.open();
    bench.wait_for(shape.threads - 1);
  }
}

// A driver that answers at once need not notify a device that still looks.
void patience_spares_notifications() {
  for (const bool event_idx : {true, false}) {
    Bench bench(
        {2, std::chrono::seconds(5), event_idx}, [] {}, std::chrono::seconds(60));
    constexpr size_t rounds = 200;
    for (size_t i = 0; i < rounds; ++i) {
      bench.add();
      bench.wait_for(1);
      std::this_thread::sleep_for(microseconds(500));  // its thread looks again
    }
    expect(bench.kicks() < rounds / 2, "few notifications: " + std::to_string(bench.kicks()));
  }
}

// Without patience each idle thread has to be told.
void no_patience() {
  Bench bench({1, microseconds(0), true}, [] {});
  for (int i = 0; i < 50; ++i) {
    std::this_thread::sleep_for(microseconds(2000));  // it has fallen asleep
    bench.add();
    bench.wait_for(1);
  }
  expect(bench.kicks() > 40, "notifications: " + std::to_string(bench.kicks()));
}

}  // namespace

std::vector<Case> queue_cases() {
  return {{"queue: no buffer is forgotten", nothing_is_forgotten},
          {"queue: a busy thread keeps no buffer from the others", busy_threads_keep_nothing},
          {"queue: patience spares notifications", patience_spares_notifications},
          {"queue: without patience the driver notifies", no_patience}};
}

}  // namespace tskata::testing
