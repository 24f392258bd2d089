// The addon's "fds" subject.
#include "addon/exports.h"

namespace tskata::addon {

void export_fds(Napi::Env, Napi::Object) {}

}  // namespace tskata::addon
