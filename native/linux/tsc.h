// The processor's time stamp counter.
#pragma once
#include <cstdint>

namespace tskata::os {

// Its frequency in kHz, measured against CLOCK_MONOTONIC_RAW for some milliseconds; 0 where there is none.
uint32_t tsc_khz();

}  // namespace tskata::os
