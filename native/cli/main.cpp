// dist/bin/tskata: runs ../lib/<own name>.cjs on ../lib/node, found from where this executable is, so that the command works by absolute
// path, by PATH and through symlinks, from any folder. Not a script: a shell would cost as much as half of node's own start.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <initializer_list>

namespace {

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "tskata: %s: %s\n", what, strerror(errno));
  exit(127);
}

// Cuts the last component off; its name begins after the returned end of the folder.
char* last_slash(char* path) {
  char* const slash = strrchr(path, '/');
  if (slash == nullptr) {
    errno = ENOENT;
    fail("find the installation");
  }
  return slash;
}

// With fewer node ends by a signal, before it can say why.
constexpr int node_descriptors = 20;

// They are closed when node is executed.
void check_descriptors() {
  for (int i = 0; i < node_descriptors; ++i)
    if (open("/", O_PATH | O_CLOEXEC) < 0) fail("open the descriptors that node begins with");
}

}  // namespace

int main(int argc, char** argv) {
  static char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length < 0) fail("read /proc/self/exe");
  self[length] = '\0';
  char* const name = last_slash(self) + 1;
  name[-1] = '\0';
  *last_slash(self) = '\0';

  static char node[2 * PATH_MAX], bundle[2 * PATH_MAX];
  snprintf(node, sizeof node, "%s/lib/node", self);
  snprintf(bundle, sizeof bundle, "%s/lib/%s.cjs", self, name);

  // The caller's environment is not node's: these would load code into a process that runs as root.
  for (const char* variable : {"NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "NODE_V8_COVERAGE", "NODE_REPL_EXTERNAL_MODULE"})
    unsetenv(variable);

  // Compiled code of the bundles, kept beside them: compiling is a third of a short command's time.
  static char cache[2 * PATH_MAX];
  snprintf(cache, sizeof cache, "%s/lib/cache", self);
  if (access(cache, R_OK) == 0) setenv("NODE_COMPILE_CACHE", cache, 1);

  char** const arguments = static_cast<char**>(calloc(static_cast<size_t>(argc) + 3, sizeof(char*)));
  if (arguments == nullptr) fail("allocate");
  int count = 0;
  arguments[count++] = node;
  arguments[count++] = bundle;
  for (int i = 1; i < argc; ++i) arguments[count++] = argv[i];
  check_descriptors();
  execv(node, arguments);
  fail(node);
}
