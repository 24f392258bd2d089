// Copies a folder's content, for tmpfs mounts that begin with what they cover (tmpcopyup).
#pragma once

namespace tskata::launcher {

// Everything below one folder: owners, modes, times, links, devices. Sub-mounts are not entered.
void copy_folder(int from, int to);

}  // namespace tskata::launcher
