// The addon's "launch" subject.
#include "addon/exports.h"

namespace tskata::addon {

void export_launch(Napi::Env, Napi::Object) {}

}  // namespace tskata::addon
