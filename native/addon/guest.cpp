// The addon's "guest" subject.
#include "addon/exports.h"

namespace tskata::addon {

void export_guest(Napi::Env, Napi::Object) {}

}  // namespace tskata::addon
