// virtio-balloon: which pages a request names, and giving them back.
#include "devices/balloon/balloon.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "virtio/pieces.h"

namespace tskata::devices::balloon {

namespace {

// §5.5.3. PAGE_POISON is not offered: the driver may not rely on what a returned page holds, and does not report pages whose
// contents it wants to keep.
constexpr uint64_t feature_deflate_on_oom = 1ull << 2;
constexpr uint64_t feature_page_reporting = 1ull << 5;

constexpr size_t inflate_queue = 0;
constexpr size_t deflate_queue = 1;

// Linux sends 256 page numbers at a time. A longer list is not served: with chains as long as the queue allows, one request could
// name every page billions of times and keep the thread for as long.
constexpr size_t max_pages = 64 * 1024;
constexpr size_t max_numbers_bytes = max_pages * sizeof(uint32_t);

// The whole host pages of a range go back to the host; they read as zeroes (or as the template file's bytes) when touched again. The
// one place that cares how guest memory is mapped: a shared file must lose its pages too (MADV_REMOVE punches a hole), while private
// memory refuses that and is only unmapped.
void give_back(std::span<std::byte> range) {
  static const auto host_page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<uintptr_t>(range.data());
  const uintptr_t first = (start + host_page - 1) & ~(host_page - 1);
  const uintptr_t end = (start + range.size()) & ~(host_page - 1);
  if (first >= end) return;
  void* const pages = reinterpret_cast<void*>(first);
  if (::madvise(pages, end - first, MADV_REMOVE) == 0) return;
  // A failure costs memory and nothing else: the guest has given the pages up either way.
  (void)::madvise(pages, end - first, MADV_DONTNEED);
}

// The page numbers of a request, sorted: a run of neighbours is one call to the kernel, and a number said twice is one page.
std::vector<uint32_t> page_numbers(const virtio::Chain& chain) {
  if (chain.readable_bytes % sizeof(uint32_t) != 0) throw virtio::QueueFault("page numbers of a broken length");
  if (chain.readable_bytes > max_numbers_bytes) throw virtio::QueueFault("too many page numbers");
  std::vector<uint32_t> out(chain.readable_bytes / sizeof(uint32_t));
  virtio::gather(chain.readable, std::as_writable_bytes(std::span(out)));
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

size_t inflate(const virtio::GuestMemory& memory, const virtio::Chain& chain) {
  const std::vector<uint32_t> pages = page_numbers(chain);
  for (size_t i = 0; i < pages.size();) {
    size_t run = 1;
    // A run ends where the host's mapping does, even when the guest's addresses go on: each page is looked up.
    const auto lookup = [&](size_t at) { return memory.slice(pages[at] * BalloonDevice::page_bytes, BalloonDevice::page_bytes); };
    const auto first = lookup(i);
    if (!first) throw virtio::QueueFault("page outside guest memory");
    for (; i + run < pages.size() && pages[i + run] == pages[i] + run; ++run) {
      const auto next = lookup(i + run);
      if (!next || next->data() != first->data() + run * BalloonDevice::page_bytes) break;
    }
    give_back({first->data(), run * BalloonDevice::page_bytes});
    i += run;
  }
  return 0;
}

// §5.5.6.7: the buffers are the free pages themselves. The driver takes them back when we return them, so not before they are gone.
size_t report(const virtio::Chain& chain) {
  if (chain.readable_bytes != 0) throw virtio::QueueFault("readable buffer on the reporting queue");
  for (const iovec& piece : chain.writable) give_back({static_cast<std::byte*>(piece.iov_base), piece.iov_len});
  return 0;  // nothing was written to them
}

}  // namespace

uint64_t BalloonDevice::features() const {
  return feature_deflate_on_oom | feature_page_reporting | virtio::feature_indirect_desc | virtio::feature_event_idx;
}

void BalloonDevice::read_config(size_t offset, std::span<std::byte> out) const {
  const std::lock_guard lock(mutex_);
  virtio::copy_config(std::as_bytes(std::span(&config_, 1)), offset, out);
}

void BalloonDevice::write_config(size_t offset, std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  // Only `actual` is the driver's, and it may come in parts.
  const auto actual = std::as_writable_bytes(std::span(&config_.actual, 1));
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t at = offset + i;
    if (at >= offsetof(Config, actual) && at < sizeof(Config)) actual[at - offsetof(Config, actual)] = bytes[i];
  }
}

void BalloonDevice::on_config_change(std::function<void()> changed) {
  const std::lock_guard lock(mutex_);
  changed_ = std::move(changed);
}

void BalloonDevice::set_target(uint32_t pages) {
  std::function<void()> changed;
  {
    const std::lock_guard lock(mutex_);
    if (config_.num_pages == pages) return;
    config_.num_pages = pages;
    changed = changed_;
  }
  if (changed) changed();  // unlocked: the transport may read the configuration at once
}

uint32_t BalloonDevice::actual() const {
  const std::lock_guard lock(mutex_);
  return config_.actual;
}

void BalloonDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  stop_queue(index);
  const auto source = queue.queue;
  virtio::QueueWorkers::Serve serve;
  if (index == inflate_queue) serve = [source](const virtio::Chain& chain) { return inflate(source->memory(), chain); };
  // Nothing to do: the pages come back to the host process when the guest touches them.
  else if (index == deflate_queue) serve = [](const virtio::Chain&) { return size_t{0}; };
  // The reporting queue is number 4 (§5.5.2). Linux has long counted only the queues it uses, so that it is number 2 there; without
  // the statistics and hinting features no other queue has these numbers.
  else serve = report;
  workers_[index] = std::make_unique<virtio::QueueWorkers>("balloon", std::move(queue), 1, virtio::QueueWorkers::each(std::move(serve)));
}

void BalloonDevice::stop_queue(size_t index) { workers_[index].reset(); }

void BalloonDevice::reset() {
  const std::lock_guard lock(mutex_);
  config_.actual = 0;  // a new driver begins with an empty balloon; the target stays the host's
}

}  // namespace tskata::devices::balloon
