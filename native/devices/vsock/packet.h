// The header of every virtio-vsock packet (virtio 1.2 §5.10.6), and its constants.
#pragma once
#include <cstdint>

namespace tskata::devices::vsock {

#pragma pack(push, 1)
struct PacketHeader {
  uint64_t src_cid;
  uint64_t dst_cid;
  uint32_t src_port;
  uint32_t dst_port;
  uint32_t length;
  uint16_t type;
  uint16_t op;
  uint32_t flags;
  uint32_t buf_alloc;  // receive space the sender of this packet has for the stream
  uint32_t fwd_cnt;    // bytes of the stream its application has taken
};
#pragma pack(pop)
static_assert(sizeof(PacketHeader) == 44);

constexpr uint64_t host_cid = 2;
constexpr uint16_t type_stream = 1;

enum Op : uint16_t {
  op_request = 1,
  op_response = 2,
  op_rst = 3,
  op_shutdown = 4,
  op_rw = 5,
  op_credit_update = 6,
  op_credit_request = 7,
};

constexpr uint32_t shutdown_receive = 1;
constexpr uint32_t shutdown_send = 2;

}  // namespace tskata::devices::vsock
