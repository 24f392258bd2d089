// Address to range.
#include "kvm/bus.h"

#include <algorithm>
#include <stdexcept>

namespace tskata::kvm {

void Bus::add(BusRange range) {
  if (closed_) throw std::logic_error("the machine runs already");
  const auto after = std::ranges::upper_bound(ranges_, range.base, {}, &BusRange::base);
  const bool free_below = after == ranges_.begin() || std::prev(after)->base + std::prev(after)->size <= range.base;
  const bool free_above = after == ranges_.end() || range.base + range.size <= after->base;
  if (range.size == 0 || range.base + range.size < range.base) throw std::invalid_argument("bus range of a broken size");
  if (!free_below || !free_above) throw std::invalid_argument("bus range overlaps another");
  ranges_.insert(after, std::move(range));
}

const BusRange* Bus::find(uint64_t address, size_t length) const {
  const auto after = std::ranges::upper_bound(ranges_, address, {}, &BusRange::base);
  if (after == ranges_.begin()) return nullptr;
  const BusRange& range = *std::prev(after);
  const uint64_t offset = address - range.base;
  return offset < range.size && length <= range.size - offset ? &range : nullptr;
}

void Bus::read(uint64_t address, std::span<std::byte> out) const {
  const BusRange* const range = find(address, out.size());
  if (range == nullptr) {
    std::ranges::fill(out, std::byte{0xff});
    return;
  }
  range->read(address - range->base, out);
}

void Bus::write(uint64_t address, std::span<const std::byte> in) const {
  if (const BusRange* const range = find(address, in.size())) range->write(address - range->base, in);
}

}  // namespace tskata::kvm
