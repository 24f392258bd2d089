// One FUSE request in guest memory: a checked reader over what the guest sent, and the reply's place.
#pragma once
#include <linux/fuse.h>
#include <sys/uio.h>

#include <array>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "virtio/pieces.h"

namespace tskata::devices::fs {

// Thrown for a request the guest malformed; answered with EINVAL.
inline std::system_error malformed() { return std::system_error(EINVAL, std::generic_category(), "malformed request"); }

// Small arguments are copied out of guest memory once (the guest may change it meanwhile); file data stays where it is.
class Request {
 public:
  static constexpr size_t max_string = 4096;

  Request(std::span<const iovec> readable, std::span<const iovec> writable) : readable_(readable), writable_(writable) {
    header_ = take<fuse_in_header>();
  }

  const fuse_in_header& header() const { return header_; }

  template <typename T>
  T take() {
    T value;
    copy({reinterpret_cast<std::byte*>(&value), sizeof value});
    return value;
  }

  // The next NUL-terminated string; `limit`, below max_string, excludes the NUL.
  std::string take_string(size_t limit) {
    std::array<char, max_string> bytes;
    const auto room = std::as_writable_bytes(std::span(bytes).first(limit + 1));
    const std::string_view text(bytes.data(), virtio::gather(readable_, room, position_));
    const size_t length = text.find('\0');
    if (length == std::string_view::npos && text.size() < room.size()) throw malformed();
    if (length == std::string_view::npos) throw std::system_error(ENAMETOOLONG, std::generic_category());
    position_ += length + 1;
    return std::string(text.substr(0, length));
  }

  // One path component of the guest's: never a path, never "." or "..".
  std::string take_name() {
    std::string name = take_string(255);
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) throw malformed();
    return name;
  }

  std::vector<std::byte> take_bytes(size_t length, size_t limit) {
    if (length > limit) throw std::system_error(E2BIG, std::generic_category());
    std::vector<std::byte> out(length);
    copy(out);
    return out;
  }

  // The next `length` bytes where they are, for writes straight from guest memory.
  std::vector<iovec> pieces(size_t length) {
    std::vector<iovec> out = virtio::window(readable_, position_, length);
    size_t total = 0;
    for (const iovec& piece : out) total += piece.iov_len;
    if (total != length) throw malformed();
    position_ += length;
    return out;
  }

  // Where `length` bytes of reply body go, for reads straight into guest memory; shorter when the guest gave less room.
  std::vector<iovec> reply_pieces(size_t length) const { return virtio::window(writable_, sizeof(fuse_out_header), length); }

  // Fill the reply; return its size. The body is cut to the room there is only where the protocol allows (callers check).
  size_t reply(std::span<const std::byte> body) {
    if (body.size() > room()) throw std::system_error(ERANGE, std::generic_category());
    write_at(sizeof(fuse_out_header), body);
    return finish(body.size());
  }
  template <typename T>
  size_t reply(const T& body) {
    return reply(std::span(reinterpret_cast<const std::byte*>(&body), sizeof body));
  }
  size_t reply_empty() { return finish(0); }
  size_t reply_written(size_t length) { return finish(length); }
  size_t reply_error(int error) { return finish(0, -error); }

  size_t room() const {
    const size_t total = writable_bytes();
    return total < sizeof(fuse_out_header) ? 0 : total - sizeof(fuse_out_header);
  }
  bool has_reply() const { return !writable_.empty(); }

 private:
  size_t writable_bytes() const {
    size_t total = 0;
    for (const iovec& piece : writable_) total += piece.iov_len;
    return total;
  }

  void copy(std::span<std::byte> out) {
    if (virtio::gather(readable_, out, position_) != out.size()) throw malformed();
    position_ += out.size();
  }

  void write_at(size_t offset, std::span<const std::byte> bytes) { virtio::scatter(bytes, writable_, offset); }

  size_t finish(size_t body, int error = 0) {
    if (!has_reply()) return 0;  // FORGET and the like have no answer
    fuse_out_header out{};
    out.len = static_cast<uint32_t>(sizeof out + body);
    out.error = error;
    out.unique = header_.unique;
    write_at(0, {reinterpret_cast<const std::byte*>(&out), sizeof out});
    return body == 0 ? std::min(sizeof out, writable_bytes()) : out.len;  // bodies have been held against the room already
  }

  std::span<const iovec> readable_;
  std::span<const iovec> writable_;
  size_t position_ = 0;
  fuse_in_header header_{};
};

}  // namespace tskata::devices::fs
