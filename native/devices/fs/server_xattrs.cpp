// Extended attributes, by way of /proc so that an O_PATH descriptor serves; a symlink's leads to the symlink itself.
#include <sys/xattr.h>

#include "linux/proc_path.h"
#include "devices/fs/server.h"

namespace tskata::devices::fs {

namespace {

constexpr size_t max_value = 65536;  // XATTR_SIZE_MAX

// The guest's kernel asks for ACLs to check permissions (FUSE_POSIX_ACL), and fails the check with any error but that there is none: so that is
// what a filesystem says which knows of no ACLs.
int as_none(int error, const std::string& name) { return error == EOPNOTSUPP && name.starts_with("system.posix_acl_") ? ENODATA : error; }

}  // namespace

size_t Server::setxattr(Request& request) {
  const auto in = request.take<fuse_setxattr_in>();  // the extended form: FUSE_SETXATTR_EXT is always negotiated
  const std::string name = request.take_string(255);
  const std::vector<std::byte> value = request.take_bytes(in.size, max_value);
  const InodeRef inode = inodes_.get(request.header().nodeid);
  const PathRef path = inodes_.path(*inode);
  os::checked(::setxattr(os::proc_path(path->get()).c_str(), name.c_str(), value.data(), value.size(), static_cast<int>(in.flags)), "setxattr");
  if ((in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0) {
    struct stat now {};
    if (::stat(os::proc_path(path->get()).c_str(), &now) == 0) (void)::chmod(os::proc_path(path->get()).c_str(), now.st_mode & 07777 & ~S_ISGID);
  }
  return request.reply_empty();
}

size_t Server::getxattr(Request& request) {
  const auto in = request.take<fuse_getxattr_in>();
  const std::string name = request.take_string(255);
  const InodeRef inode = inodes_.get(request.header().nodeid);
  const PathRef path = inodes_.path(*inode);
  std::vector<std::byte> value(std::min<size_t>(in.size, max_value));
  const ssize_t length = ::getxattr(os::proc_path(path->get()).c_str(), name.c_str(), value.data(), value.size());
  if (length < 0) return request.reply_error(as_none(errno, name));  // no exception for it: most files have none of what is asked for
  if (in.size == 0) return request.reply(fuse_getxattr_out{static_cast<uint32_t>(length), 0});
  return request.reply(std::span<const std::byte>(value).first(static_cast<size_t>(length)));
}

size_t Server::listxattr(Request& request) {
  const auto in = request.take<fuse_getxattr_in>();
  const InodeRef inode = inodes_.get(request.header().nodeid);
  std::vector<char> names(std::min<size_t>(in.size, max_value));
  const PathRef path = inodes_.path(*inode);
  const ssize_t length = ::listxattr(os::proc_path(path->get()).c_str(), names.data(), names.size());
  os::checked(static_cast<int>(length), "listxattr");
  if (in.size == 0) return request.reply(fuse_getxattr_out{static_cast<uint32_t>(length), 0});
  return request.reply(std::as_bytes(std::span(names)).first(static_cast<size_t>(length)));
}

size_t Server::removexattr(Request& request) {
  const std::string name = request.take_string(255);
  const InodeRef inode = inodes_.get(request.header().nodeid);
  const PathRef path = inodes_.path(*inode);
  os::checked(::removexattr(os::proc_path(path->get()).c_str(), name.c_str()), "removexattr");
  return request.reply_empty();
}

}  // namespace tskata::devices::fs
