// What the proxy gives up once it has all that it needs: every capability for good, and every system call but those of its loop.
#pragma once

namespace tskata::proxy {

// False when something could not be given up: nothing may go on then.
bool confine();

}  // namespace tskata::proxy
