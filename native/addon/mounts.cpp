// The addon's "mounts" subject.
#include "addon/exports.h"

namespace tskata::addon {

void export_mounts(Napi::Env, Napi::Object) {}

}  // namespace tskata::addon
