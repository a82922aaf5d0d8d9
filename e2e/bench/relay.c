// The floor: what forwarding bytes costs with nothing in between. One level-triggered epoll loop, one
// upstream connection per client connection opened at accept, TCP_NODELAY, recv then send, no parsing.
// usage: relay LISTEN_PORT UPSTREAM_PORT   (both on 127.0.0.1)
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FD 65536
static int peer[MAX_FD];
static char buffer[65536];

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void watch(int poll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
}

static void nodelay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void take(int poll, int listener, struct sockaddr_in *upstream) {
    int client = accept4(listener, NULL, NULL, 0);
    if (client < 0) return;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    if (server < 0 || client >= MAX_FD || server >= MAX_FD ||
        connect(server, (struct sockaddr *)upstream, sizeof *upstream) < 0) {
        close(client);
        if (server >= 0) close(server);
        return;
    }
    nodelay(client);
    nodelay(server);
    peer[client] = server;
    peer[server] = client;
    watch(poll, client);
    watch(poll, server);
}

static void drop_pair(int fd) {
    int other = peer[fd];
    peer[fd] = peer[other] = -1;
    close(fd);
    close(other);
}

static void relay(int fd) {
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) return drop_pair(fd);
    for (ssize_t sent = 0; sent < got;) {
        ssize_t now = send(peer[fd], buffer + sent, got - sent, MSG_NOSIGNAL);
        if (now < 0) return drop_pair(fd);
        sent += now;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: relay LISTEN_PORT UPSTREAM_PORT\n"), 64;
    memset(peer, 0xff, sizeof peer);
    struct sockaddr_in here = loopback(atoi(argv[1])), upstream = loopback(atoi(argv[2]));
    int one = 1, poll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 4096) < 0) {
        perror("relay");
        return 1;
    }
    watch(poll, listener);
    struct epoll_event events[256];
    for (;;) {
        int count = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) take(poll, listener, &upstream);
            else if (peer[fd] >= 0) relay(fd);
        }
    }
}
