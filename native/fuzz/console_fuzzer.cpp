// Fuzzes the bounded console log: the input says in what parts a guest prints, with which bytes.
// The file is the whole output, or its beginning, one line that counts what is missing, and its end.
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "devices/console/console_log.h"

namespace {

using namespace tskata;
using devices::console::BoundedFile;

constexpr size_t most_output = 6u << 20;
constexpr int max_steps = 100;

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("console_fuzzer: %s\n", what);
  std::fflush(stdout);
  std::abort();
}

std::string content(int file) {
  struct stat facts {};
  require(::fstat(file, &facts) == 0, "fstat");
  std::string out(static_cast<size_t>(facts.st_size), '\0');
  require(::pread(file, out.data(), out.size(), 0) == static_cast<ssize_t>(out.size()), "pread");
  return out;
}

std::string part(FuzzedDataProvider& input) {
  const size_t length =
      input.PickValueInArray<size_t>({0, 1, 79, 4095, 4096, 65536, 100'001, BoundedFile::head_bytes, BoundedFile::kept_bytes, 900'000});
  const std::string piece = input.ConsumeRandomLengthString(100);
  if (piece.empty()) return std::string(length, input.ConsumeBool() ? '\n' : '\0');
  std::string out;
  while (out.size() < length) out += piece;
  out.resize(length);
  return out;
}

void check(const std::string& text, const std::string& all) {
  require(text.size() <= BoundedFile::limit_bytes, "beyond the limit");
  if (all.size() <= BoundedFile::limit_bytes) return require(text == all, "not the output");
  constexpr size_t head = BoundedFile::head_bytes;
  require(text.compare(0, head, all, 0, head) == 0, "not its beginning");
  const std::string begin = "\n[tskata: ";
  const std::string end = " bytes of console output left out here]\n";
  require(text.compare(head, begin.size(), begin) == 0, "no mark");
  char* rest = nullptr;
  const size_t missing = std::strtoull(text.c_str() + head + begin.size(), &rest, 10);
  const auto at = static_cast<size_t>(rest - text.c_str());
  require(text.compare(at, end.size(), end) == 0, "a broken mark");
  const std::string tail = text.substr(at + end.size());
  require(all.ends_with(tail), "not its end");
  require(missing + head + tail.size() == all.size(), "the mark does not count what is missing");
  require(tail.size() + 4096 >= BoundedFile::kept_bytes, "less than it should keep");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  const os::Descriptor file(os::checked(::memfd_create("log", MFD_CLOEXEC), "memfd_create"));
  BoundedFile log(os::Descriptor(os::checked(::dup(file.get()), "dup")));
  std::string all;
  for (int i = 0; i < max_steps && input.remaining_bytes() > 0 && all.size() < most_output; ++i) {
    const std::string text = part(input);
    log.append(text);
    all += text;
    if (input.ConsumeIntegralInRange(0, 7) == 0) check(content(file.get()), all);
  }
  check(content(file.get()), all);
  return 0;
}
