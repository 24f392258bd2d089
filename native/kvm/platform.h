// What stands at fixed places of the machine, as ranges of its buses.
#pragma once
#include <functional>

#include "devices/console/uart.h"
#include "kvm/bus.h"
#include "transport/virtio_mmio.h"

namespace tskata::kvm {

// The one thing of a PC's keyboard controller that is needed: its status is empty, and the pulse on its reset line calls `reset`.
BusRange reset_port(uint16_t port, std::function<void()> reset);
// The eight registers of a serial port. An access wider than one is one to each of the registers it covers.
BusRange serial_port(uint16_t port, devices::console::Uart& uart);
BusRange device_slot(uint64_t address, transport::VirtioMmio& slot);

}  // namespace tskata::kvm
