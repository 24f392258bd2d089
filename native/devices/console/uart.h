// A 16550A serial port (8250 family): what a guest's console and its early messages go to.
//
// Registers as in the National Semiconductor PC16550D data sheet. There is no line: a byte written is sent at once, so the transmitter
// is always empty, and nothing is ever received but what the guest sends itself in loopback. All that is kept is what drivers look at:
// enough for Linux to find a 16550A at its first try and to write by interrupts with no doubt about them.
#pragma once
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

namespace tskata::devices::console {

// Thread-safe: any vCPU may touch the port.
class Uart {
 public:
  // `output` takes every byte sent. `interrupt` follows the interrupt line: called when it changes, with the new level. Both run on the
  // thread of the access with the port locked: they must not block and must not come back here.
  Uart(std::function<void(uint8_t)> output, std::function<void(bool)> interrupt);

  // `offset` from the port's base, 0 to 7; beyond it nothing is there.
  uint8_t read(unsigned offset);
  void write(unsigned offset, uint8_t value);

 private:
  uint8_t take_received();
  uint8_t identify_interrupt();
  uint8_t line_status() const;
  uint8_t modem_status() const;
  void send(uint8_t value);
  void enable_interrupts(uint8_t value);
  void control_fifo(uint8_t value);
  void update_line();
  bool latch_open() const;
  bool looped() const;

  std::function<void(uint8_t)> output_;
  std::function<void(bool)> interrupt_;
  std::mutex mutex_;
  uint8_t interrupt_enable_ = 0;
  uint8_t line_control_ = 0;
  uint8_t modem_control_ = 0;
  uint8_t scratch_ = 0;
  uint8_t divisor_low_ = 1;
  uint8_t divisor_high_ = 0;
  bool fifo_ = false;
  bool transmitter_pending_ = false;  // "holding register empty" not told yet
  std::optional<uint8_t> received_;   // in loopback
  bool line_ = false;                 // the interrupt's level
};

}  // namespace tskata::devices::console
