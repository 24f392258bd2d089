// Cases of the serial port, as Linux's 8250 driver goes at it, and of the bounded log behind it.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "devices/console/console_log.h"
#include "devices/console/uart.h"
#include "fuzz/device_test.h"

namespace tskata::testing {

namespace {

using devices::console::BoundedFile;
using devices::console::ConsoleLog;
using devices::console::Uart;
using os::Descriptor;

constexpr unsigned data = 0, ier = 1, iir = 2, fcr = 2, lcr = 3, mcr = 4, lsr = 5, msr = 6, scr = 7;
constexpr uint8_t thri = 2;  // interrupt enable: transmitter
constexpr uint8_t out2 = 8;
constexpr uint8_t loop = 0x10;

struct Port {
  std::string sent;
  bool line = false;
  int rises = 0;
  Uart uart{[this](uint8_t byte) { sent.push_back(static_cast<char>(byte)); },
            [this](bool level) {
              expect(level != line, "only changes are told");
              line = level;
              rises += level ? 1 : 0;
            }};
};

void says(bool holds, const char* what, int line = __builtin_LINE()) { expect(holds, what, line); }

// The steps of serial8250's autoconfig that decide what the port is.
void is_a_16550a() {
  Port port;
  Uart& uart = port.uart;
  uart.write(ier, 0);
  says((uart.read(ier) & 0x0f) == 0, "no interrupts");
  uart.write(ier, 0xff);
  says(uart.read(ier) == 0x0f, "four interrupts, and no bit of a later chip");
  uart.write(ier, 0);
  uart.write(mcr, loop | 0x0a);
  says((uart.read(msr) & 0xf0) == 0x90, "loopback: RTS and OUT2 come back as CTS and DCD");
  uart.write(mcr, loop | 0x05);
  says((uart.read(msr) & 0xf0) == 0x60, "loopback: DTR and OUT1 come back as DSR and RI");
  uart.write(mcr, 0);
  says(uart.read(iir) >> 6 == 0, "no FIFO yet");
  uart.write(fcr, 1);
  says(uart.read(iir) >> 6 == 3, "a FIFO: 16550A");
  uart.write(lcr, 0x80);
  says(uart.read(iir) != 0, "no extended features: 16650");
  uart.write(lcr, 0xbf);
  says(uart.read(iir) != 0, "nor behind the other door");
  uart.write(lcr, 0);
  uart.write(fcr, 0x21);
  says(uart.read(iir) >> 5 == 6, "no FIFO of 64: 16750");
  uart.write(scr, 0x5a);
  says(uart.read(scr) == 0x5a, "scratch");
  says(uart.read(lsr) == 0x60, "empty and ready");
  says(uart.read(msr) == 0xb0, "a terminal is there");
  says(uart.read(8) == 0xff && uart.read(1000) == 0xff, "nothing beyond the port");
  uart.write(1000, 1);
}

void divisor() {
  Port port;
  port.uart.write(ier, 5);
  port.uart.write(lcr, 0x83);
  port.uart.write(data, 12);
  port.uart.write(ier, 34);
  says(port.uart.read(data) == 12 && port.uart.read(ier) == 34 && port.uart.read(lcr) == 0x83, "the divisor");
  port.uart.write(lcr, 3);
  says(port.uart.read(ier) == 5 && port.uart.read(data) == 0, "the registers behind it");
  says(port.sent.empty(), "the divisor is not sent");
}

// serial8250_do_startup: does the transmitter's interrupt come when it is enabled, and come again?
void transmitter_interrupt() {
  Port port;
  Uart& uart = port.uart;
  uart.write(fcr, 1);
  uart.write(mcr, out2);
  for (int i = 0; i < 2; ++i) {
    uart.write(ier, thri);
    says(port.line, "enabling raises it");
    says(uart.read(iir) == 0xc2, "the transmitter's");
    says(!port.line && uart.read(iir) == 0xc1, "naming it ends it");
    uart.write(ier, 0);
  }
  uart.write(ier, thri);
  uart.read(iir);
  uart.write(data, 'a');
  says(port.line && port.rises == 4, "a byte sent raises it again");
  uart.write(data, 'b');
  says(port.line && port.rises == 4, "once for what was sent meanwhile");
  says(uart.read(iir) == 0xc2 && !port.line, "and it ends");
  uart.write(ier, thri);
  says(!port.line, "enabling what is enabled raises nothing");
  uart.write(data, 'c');
  uart.write(ier, 0);
  says(!port.line && uart.read(iir) == 0xc1, "disabled: no interrupt");
  says(port.sent == "abc", "what was sent");
}

void gate() {
  Port port;
  port.uart.write(ier, thri);
  says(!port.line, "no interrupt without OUT2");
  port.uart.write(mcr, out2);
  says(port.line, "with it there is");
  port.uart.write(mcr, out2 | loop);
  says(!port.line, "none in loopback");
}

void loopback() {
  Port port;
  Uart& uart = port.uart;
  uart.write(mcr, loop);
  uart.write(data, 'x');
  says(port.sent.empty() && uart.read(lsr) == 0x61, "received, not sent");
  uart.write(ier, 1);
  says(uart.read(iir) == 4, "the receiver's interrupt");
  says(uart.read(data) == 'x' && uart.read(lsr) == 0x60 && uart.read(iir) == 1, "read and gone");
  uart.write(data, 'y');
  uart.write(fcr, 3);
  says(uart.read(lsr) == 0x60, "cleared with the FIFO");
}

Descriptor make_file(const TemporaryFolder& folder, int flags = O_RDWR) {
  return Descriptor(os::checked(::open((folder / "log").c_str(), flags | O_CREAT | O_CLOEXEC, 0600), "open"));
}

std::string content(const TemporaryFolder& folder) {
  const Descriptor file = make_file(folder);
  struct stat status {};
  os::checked(::fstat(file.get(), &status), "fstat");
  std::string out(static_cast<size_t>(status.st_size), '\0');
  says(::pread(file.get(), out.data(), out.size(), 0) == static_cast<ssize_t>(out.size()), "pread");
  return out;
}

std::string line_of(size_t number) {
  std::string out = "line " + std::to_string(number);
  out.resize(63, '.');
  return out + "\n";
}

size_t thread_count() {
  const std::filesystem::directory_iterator threads("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(threads), end(threads)));
}

void short_log() {
  const TemporaryFolder folder;
  {
    ConsoleLog log(make_file(folder, O_RDWR | O_APPEND));
    // As on a vCPU's thread, which may make no other.
    const size_t before = thread_count();
    log.put('h');
    says(thread_count() == before, "a byte makes no thread");
    log.start();
    says(thread_count() == before + 1, "the start does");
    for (const char byte : std::string("ello\nworld\n")) log.put(static_cast<uint8_t>(byte));
  }
  {
    ConsoleLog log(make_file(folder));
    log.start();
    log.put('!');
  }
  says(content(folder) == "hello\nworld\n!", "what was put, and on at the end");
}

// The first lines, one mark that counts what is missing, the last lines: nothing else is ever in the file.
void long_log() {
  const TemporaryFolder folder;
  BoundedFile file(make_file(folder));
  constexpr size_t lines = 100000;
  size_t largest = 0;
  for (size_t i = 0; i < lines; ++i) {
    file.append(line_of(i));
    if (i % 500 == 0) largest = std::max(largest, content(folder).size());
  }
  const std::string text = content(folder);
  says(std::max(largest, text.size()) <= BoundedFile::limit_bytes, "never beyond the limit");
  constexpr size_t head_lines = BoundedFile::head_bytes / 64;
  for (size_t i = 0; i < head_lines; ++i) says(text.compare(i * 64, 64, line_of(i)) == 0, "the head");
  const size_t end = text.find('\n', BoundedFile::head_bytes + 1);
  const std::string mark = text.substr(BoundedFile::head_bytes, end - BoundedFile::head_bytes);
  const std::string tail = text.substr(end + 1);
  says(tail.size() % 64 == 0 && tail.size() >= BoundedFile::kept_bytes - 64, "the tail is of whole lines");
  for (size_t i = 0; i < tail.size() / 64; ++i) says(tail.compare(i * 64, 64, line_of(lines - tail.size() / 64 + i)) == 0, "the tail");
  const uint64_t missing = lines * 64 - BoundedFile::head_bytes - tail.size();
  says(mark == "\n[tskata: " + std::to_string(missing) + " bytes of console output left out here]", "the mark");
}

void no_lines() {
  const TemporaryFolder folder;
  BoundedFile file(make_file(folder));
  for (int i = 0; i < 50; ++i) file.append(std::string(100'000, static_cast<char>('a' + i % 26)));
  const std::string text = content(folder);
  says(text.size() <= BoundedFile::limit_bytes && text.ends_with(std::string(100'000, static_cast<char>('a' + 49 % 26))),
       "bounded, and the end is there");
}

// A guest that never stops: put must not wait, and what is lost is told.
void flood() {
  const TemporaryFolder folder;
  {
    ConsoleLog log(make_file(folder));
    log.start();
    for (int i = 0; i < 20'000'000; ++i) log.put(i % 80 == 79 ? '\n' : 'x');
  }
  says(content(folder).size() <= BoundedFile::limit_bytes, "bounded");
}

void refused_files() {
  const TemporaryFolder folder;
  std::array<int, 2> ends;
  os::checked(::pipe2(ends.data(), O_CLOEXEC), "pipe");
  const Descriptor reader(ends[0]);
  const auto refused = [](Descriptor file) {
    try {
      BoundedFile(std::move(file));
    } catch (const std::invalid_argument&) {
      return;
    }
    expect(false, "refused");
  };
  refused(Descriptor(ends[1]));
  refused(make_file(folder, O_WRONLY));
}

}  // namespace

std::vector<Case> console_cases() {
  return {
      {"uart: found as a 16550A", is_a_16550a},
      {"uart: divisor", divisor},
      {"uart: the transmitter's interrupt", transmitter_interrupt},
      {"uart: OUT2 gates the interrupt", gate},
      {"uart: loopback", loopback},
      {"console log: a short one", short_log},
      {"console log: a long one keeps head and tail", long_log},
      {"console log: a long one without lines", no_lines},
      {"console log: a flood", flood},
      {"console log: files that are refused", refused_files},
  };
}

}  // namespace tskata::testing
