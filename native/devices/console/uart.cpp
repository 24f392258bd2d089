// The 16550A's eight registers.
#include "devices/console/uart.h"

#include <utility>

namespace tskata::devices::console {

namespace {

enum Register : unsigned {
  at_data = 0,
  at_interrupt_enable = 1,
  at_interrupt_id = 2,
  at_line_control = 3,
  at_modem_control = 4,
  at_line_status = 5,
  at_modem_status = 6,
  at_scratch = 7,
};

constexpr uint8_t enable_received = 1;
constexpr uint8_t enable_transmitter = 2;
constexpr uint8_t enable_all = 0x0f;

constexpr uint8_t id_none = 1;
constexpr uint8_t id_transmitter = 2;
constexpr uint8_t id_received = 4;
constexpr uint8_t id_fifo = 0xc0;  // what tells a 16550A from its ancestors

constexpr uint8_t fifo_enable = 1;
constexpr uint8_t fifo_clear_received = 2;

constexpr uint8_t control_latch = 0x80;  // divisor latch access: registers 0 and 1 are the divisor

constexpr uint8_t modem_dtr = 1;
constexpr uint8_t modem_rts = 2;
constexpr uint8_t modem_out1 = 4;
constexpr uint8_t modem_out2 = 8;  // on a PC it gates the interrupt
constexpr uint8_t modem_loop = 0x10;
constexpr uint8_t modem_all = 0x1f;

constexpr uint8_t status_received = 1;
constexpr uint8_t status_transmitter_empty = 0x60;  // holding register and shift register

constexpr uint8_t modem_cts = 0x10;
constexpr uint8_t modem_dsr = 0x20;
constexpr uint8_t modem_ri = 0x40;
constexpr uint8_t modem_dcd = 0x80;

}  // namespace

Uart::Uart(std::function<void(uint8_t)> output, std::function<void(bool)> interrupt) : output_(std::move(output)), interrupt_(std::move(interrupt)) {}

bool Uart::latch_open() const { return (line_control_ & control_latch) != 0; }
bool Uart::looped() const { return (modem_control_ & modem_loop) != 0; }

uint8_t Uart::read(unsigned offset) {
  const std::lock_guard lock(mutex_);
  switch (offset) {
    case at_data: return latch_open() ? divisor_low_ : take_received();
    case at_interrupt_enable: return latch_open() ? divisor_high_ : interrupt_enable_;
    case at_interrupt_id: return identify_interrupt();
    case at_line_control: return line_control_;
    case at_modem_control: return modem_control_;
    case at_line_status: return line_status();
    case at_modem_status: return modem_status();
    case at_scratch: return scratch_;
    default: return 0xff;
  }
}

void Uart::write(unsigned offset, uint8_t value) {
  const std::lock_guard lock(mutex_);
  switch (offset) {
    case at_data:
      if (latch_open()) divisor_low_ = value;
      else send(value);
      break;
    case at_interrupt_enable:
      if (latch_open()) divisor_high_ = value;
      else enable_interrupts(value);
      break;
    case at_interrupt_id: control_fifo(value); break;
    case at_line_control: line_control_ = value; break;
    case at_modem_control: modem_control_ = value & modem_all; break;
    case at_scratch: scratch_ = value; break;
    default: break;  // the status registers are read-only
  }
  update_line();
}

uint8_t Uart::take_received() {
  const uint8_t out = std::exchange(received_, std::nullopt).value_or(0);
  update_line();
  return out;
}

// The interrupt of the highest priority. Naming the transmitter's is what ends it; the received byte's ends when it is read.
uint8_t Uart::identify_interrupt() {
  const uint8_t fifo = fifo_ ? id_fifo : 0;
  if (received_ && (interrupt_enable_ & enable_received) != 0) return fifo | id_received;
  if (!transmitter_pending_ || (interrupt_enable_ & enable_transmitter) == 0) return fifo | id_none;
  transmitter_pending_ = false;
  update_line();
  return fifo | id_transmitter;
}

uint8_t Uart::line_status() const { return status_transmitter_empty | (received_ ? status_received : 0); }

// A terminal that is there and ready; in loopback the outputs come back as inputs, by which Linux finds out whether there is a port
// at all. The bits that tell of changes stay clear: nothing changes but what the guest does itself.
uint8_t Uart::modem_status() const {
  if (!looped()) return modem_cts | modem_dsr | modem_dcd;
  uint8_t out = 0;
  if ((modem_control_ & modem_rts) != 0) out |= modem_cts;
  if ((modem_control_ & modem_dtr) != 0) out |= modem_dsr;
  if ((modem_control_ & modem_out1) != 0) out |= modem_ri;
  if ((modem_control_ & modem_out2) != 0) out |= modem_dcd;
  return out;
}

void Uart::send(uint8_t value) {
  if (looped()) received_ = value;
  else output_(value);
  transmitter_pending_ = true;  // empty again already
}

void Uart::enable_interrupts(uint8_t value) {
  const bool had = (interrupt_enable_ & enable_transmitter) != 0;
  interrupt_enable_ = value & enable_all;
  // Enabling it while the transmitter is empty raises it. Linux tests for that and falls back to a timer where it is missing.
  if (!had && (interrupt_enable_ & enable_transmitter) != 0) transmitter_pending_ = true;
}

void Uart::control_fifo(uint8_t value) {
  const bool enable = (value & fifo_enable) != 0;
  if (enable != fifo_ || (value & fifo_clear_received) != 0) received_.reset();
  fifo_ = enable;
}

void Uart::update_line() {
  const bool received = received_ && (interrupt_enable_ & enable_received) != 0;
  const bool transmitter = transmitter_pending_ && (interrupt_enable_ & enable_transmitter) != 0;
  const bool gate = (modem_control_ & modem_out2) != 0 && !looped();
  const bool line = gate && (received || transmitter);
  if (line == line_) return;
  line_ = line;
  if (interrupt_) interrupt_(line);
}

}  // namespace tskata::devices::console
