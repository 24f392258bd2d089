// Bus accesses to registers.
#include "kvm/platform.h"

#include <algorithm>

namespace tskata::kvm {

namespace {

constexpr auto pulse_reset_line = std::byte{0xfe};  // command of the 8042
constexpr uint64_t serial_registers = 8;

}  // namespace

BusRange reset_port(uint16_t port, std::function<void()> reset) {
  return {port, 1, [](uint64_t, std::span<std::byte> out) { std::ranges::fill(out, std::byte{0}); },
          [reset = std::move(reset)](uint64_t, std::span<const std::byte> in) {
            if (in.front() == pulse_reset_line) reset();
          }};
}

BusRange serial_port(uint16_t port, devices::console::Uart& uart) {
  return {port, serial_registers,
          [&uart](uint64_t offset, std::span<std::byte> out) {
            for (std::byte& byte : out) byte = static_cast<std::byte>(uart.read(static_cast<unsigned>(offset++)));
          },
          [&uart](uint64_t offset, std::span<const std::byte> in) {
            for (const std::byte byte : in) uart.write(static_cast<unsigned>(offset++), static_cast<uint8_t>(byte));
          }};
}

BusRange device_slot(uint64_t address, transport::VirtioMmio& slot) {
  return {address, transport::VirtioMmio::size, [&slot](uint64_t offset, std::span<std::byte> out) { slot.read(offset, out); },
          [&slot](uint64_t offset, std::span<const std::byte> in) { slot.write(offset, in); }};
}

}  // namespace tskata::kvm
