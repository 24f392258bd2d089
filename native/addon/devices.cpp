// The addon's "devices" subject.
#include "addon/exports.h"

namespace tskata::addon {

void export_devices(Napi::Env, Napi::Object) {}

}  // namespace tskata::addon
