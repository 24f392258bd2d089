// The proxy's reading of the sandbox process's last message, which tells what a guest's agent said: every length and every status.
#include "fuzz/device_test.h"
#include "proxy/ending.h"

namespace tskata::testing {

namespace {

using proxy::Ending;

Ending ending(int32_t status) {
  std::array<uint8_t, 5> message{'X'};
  std::memcpy(message.data() + 1, &status, sizeof status);
  return proxy::ending_of(message.data(), message.size());
}

void every_status() {
  for (int32_t status = -0x10000; status < 0x10000; ++status) {
    const Ending is = ending(status);
    expect(is.signal >= 0 && is.signal < 127 && is.code >= 0 && is.code < 256, "an exit code or a signal");
    expect(!proxy::stops(is.signal), "no signal that stops instead");
  }
  expect(ending(3 << 8).code == 3 && ending(3 << 8).signal == 0, "an exit code");
  expect(ending(SIGTERM).signal == SIGTERM && ending(SIGSEGV | 0x80).signal == SIGSEGV, "a signal, with a core or without");
  expect(ending(SIGSTOP).code == 128 + SIGSTOP, "what cannot have been");
}

void other_messages() {
  for (int first = 0; first < 256; ++first) {
    const std::array<uint8_t, 16> message{static_cast<uint8_t>(first)};
    for (size_t length = 0; length <= message.size(); ++length) {
      if (first == 'X' && length >= 5) continue;
      expect(proxy::ending_of(message.data(), length).signal == SIGKILL, "anything else is the pod's end");
    }
  }
}

}  // namespace

std::vector<Case> proxy_cases() { return {{"proxy: every wait status", every_status}, {"proxy: other messages", other_messages}}; }

}  // namespace tskata::testing
