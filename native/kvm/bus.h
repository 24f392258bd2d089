// What answers a guest's accesses to ports and to addresses that are not memory.
#pragma once
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

namespace tskata::kvm {

// One range. Called from vCPU threads, several at a time: what is behind it locks for itself.
struct BusRange {
  uint64_t base = 0;
  uint64_t size = 0;
  std::function<void(uint64_t offset, std::span<std::byte> out)> read;
  std::function<void(uint64_t offset, std::span<const std::byte> in)> write;
};

// Filled before the vCPUs run, never changed after: looked up without a lock.
class Bus {
 public:
  void add(BusRange range);
  void close() { closed_ = true; }  // nothing is added any more
  // Accesses of at least one byte. Reads where nothing answers are all ones, as on a bus nobody drives; writes there go nowhere.
  void read(uint64_t address, std::span<std::byte> out) const;
  void write(uint64_t address, std::span<const std::byte> in) const;

 private:
  const BusRange* find(uint64_t address, size_t length) const;

  std::vector<BusRange> ranges_;  // sorted by base, not overlapping
  bool closed_ = false;
};

}  // namespace tskata::kvm
