/* pump bus PORT             carries bytes between each TCP connection to PORT and the system bus
 * pump vhci HOST PORT NAME  is a Bluetooth adapter whose controller is on the simulated air at HOST, under NAME
 *
 * The adapter is there as long as the process is: to kill it is to pull it out. The kernel takes and gives one whole
 * HCI packet (H4 framing) in each read and write of /dev/vhci, so the stream is cut into packets here. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { COMMAND = 1, ACL = 2, SCO = 3, EVENT = 4, ISO = 5, VENDOR = 0xff };

static unsigned char packet[8192];
static int filled;

static void put(int fd, const unsigned char *data, int length) {
  while (length > 0) {
    int written = write(fd, data, length);
    if (written <= 0) exit(0); /* the other side has gone */
    data += written;
    length -= written;
  }
}

/* Length of the packet at the head of the buffer; 0 while its header is incomplete. */
static int packet_length(void) {
  if (filled < 1) return 0;
  switch (packet[0]) {
    case COMMAND: return filled < 4 ? 0 : 4 + packet[3];
    case ACL: return filled < 5 ? 0 : 5 + (packet[3] | packet[4] << 8);
    case SCO: return filled < 4 ? 0 : 4 + packet[3];
    case EVENT: return filled < 3 ? 0 : 3 + packet[2];
    case ISO: return filled < 5 ? 0 : 5 + ((packet[3] | packet[4] << 8) & 0x3fff);
    default: exit(3); /* the stream is out of step */
  }
}

static int open_vhci(void) {
  static const unsigned char create[] = {VENDOR, 0};
  int fd = open("/dev/vhci", O_RDWR);
  if (fd >= 0) put(fd, create, sizeof create);
  return fd;
}

static int open_bus(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/dbus/system_bus_socket"};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  return connect(fd, (struct sockaddr *)&address, sizeof address) ? -1 : fd;
}

static void serve(int peer, int vhci) {
  unsigned char data[8192];
  int fd = vhci ? open_vhci() : open_bus();
  if (fd < 0) exit(1);
  struct pollfd ends[2] = {{peer, POLLIN, 0}, {fd, POLLIN, 0}};
  for (;;) {
    if (poll(ends, 2, -1) < 0 && errno != EINTR) exit(1);
    if (ends[1].revents) {
      int got = read(fd, data, sizeof data);
      if (got <= 0) exit(0);
      if (!vhci || data[0] != VENDOR) put(peer, data, got);
    }
    if (ends[0].revents && !vhci) {
      int got = read(peer, data, sizeof data);
      if (got <= 0) exit(0);
      put(fd, data, got);
    } else if (ends[0].revents) {
      int got = read(peer, packet + filled, sizeof packet - filled), length;
      if (got <= 0) exit(0);
      filled += got;
      while ((length = packet_length()) && length <= filled) {
        put(fd, packet, length);
        memmove(packet, packet + length, filled -= length);
      }
    }
  }
}

static int plug_in(const char *host, int port, const char *name) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  int one = 1, air = socket(AF_INET, SOCK_STREAM, 0);
  char greeting[100];
  if (!inet_aton(host, &address.sin_addr) || connect(air, (struct sockaddr *)&address, sizeof address)) return 1;
  setsockopt(air, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  put(air, (unsigned char *)greeting, snprintf(greeting, sizeof greeting, "hci %s\n", name));
  serve(air, 1);
  return 0;
}

static int share_bus(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  int one = 1, door = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(door, (struct sockaddr *)&address, sizeof address) || listen(door, 16)) return 1;
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int peer = accept(door, NULL, NULL);
    if (peer < 0) continue;
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fork() == 0) serve(peer, 0);
    close(peer);
  }
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "bus")) return share_bus(atoi(argv[2]));
  if (argc == 5 && !strcmp(argv[1], "vhci")) return plug_in(argv[2], atoi(argv[3]), argv[4]);
  return 2;
}
