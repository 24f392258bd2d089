// The addon's "relay" subject.
#include "addon/exports.h"

namespace tskata::addon {

void export_relay(Napi::Env, Napi::Object) {}

}  // namespace tskata::addon
