// The device behind a JavaScript handle.
#pragma once
#include <napi.h>

#include <memory>

#include "virtio/device.h"

namespace tskata::addon {

// Throws when the value is no device's handle, or the device is closed.
std::shared_ptr<virtio::Device> device_of(const Napi::Value& handle);

}  // namespace tskata::addon
