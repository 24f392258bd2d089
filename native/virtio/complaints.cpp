// Counted lines.
#include "virtio/complaints.h"

#include <atomic>
#include <cstdio>

namespace tskata::virtio {

void complain(const std::string& line) {
  static std::atomic<unsigned> said = 0;
  // Read first: an addition a time would come around to zero again.
  if (said.load() >= max_complaints) return;
  const unsigned before = said.fetch_add(1);
  if (before >= max_complaints) return;
  std::fprintf(stderr, "%s%s\n", line.c_str(), before + 1 == max_complaints ? " (more of the guest's faults are not told)" : "");
}

}  // namespace tskata::virtio
