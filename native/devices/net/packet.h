// The header before every packet of virtio-net (virtio 1.2 §5.1.6), features (§5.1.3), configuration (§5.1.4), control commands (§5.1.6.5).
#pragma once
#include <cstddef>
#include <cstdint>

namespace tskata::devices::net {

struct PacketHeader {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
  uint16_t num_buffers;
};
static_assert(sizeof(PacketHeader) == 12);

constexpr uint8_t flag_needs_csum = 1;

constexpr uint8_t gso_none = 0;
constexpr uint8_t gso_tcpv4 = 1;
constexpr uint8_t gso_udp = 3;
constexpr uint8_t gso_tcpv6 = 4;
constexpr uint8_t gso_ecn = 0x80;

constexpr uint64_t feature_csum = 1ull << 0;
constexpr uint64_t feature_guest_csum = 1ull << 1;
constexpr uint64_t feature_mtu = 1ull << 3;
constexpr uint64_t feature_mac = 1ull << 5;
constexpr uint64_t feature_guest_tso4 = 1ull << 7;
constexpr uint64_t feature_guest_tso6 = 1ull << 8;
constexpr uint64_t feature_guest_ecn = 1ull << 9;
constexpr uint64_t feature_guest_ufo = 1ull << 10;
constexpr uint64_t feature_host_tso4 = 1ull << 11;
constexpr uint64_t feature_host_tso6 = 1ull << 12;
constexpr uint64_t feature_host_ecn = 1ull << 13;
constexpr uint64_t feature_host_ufo = 1ull << 14;
constexpr uint64_t feature_mrg_rxbuf = 1ull << 15;
constexpr uint64_t feature_status = 1ull << 16;
constexpr uint64_t feature_ctrl_vq = 1ull << 17;
constexpr uint64_t feature_mq = 1ull << 22;

struct Config {
  uint8_t mac[6];
  uint16_t status;
  uint16_t max_virtqueue_pairs;
  uint16_t mtu;
};
static_assert(sizeof(Config) == 12);
constexpr uint16_t status_link_up = 1;

constexpr uint8_t control_mq = 4;
constexpr uint8_t control_mq_pairs_set = 0;
constexpr uint8_t control_ok = 0;
constexpr uint8_t control_failed = 1;

// §5.1.6.3.1: what a receive buffer must hold where the guest takes segmentation offload: header, Ethernet header, 64 KiB.
constexpr size_t max_packet_bytes = 65562;
constexpr size_t ethernet_bytes = 14;

}  // namespace tskata::devices::net
