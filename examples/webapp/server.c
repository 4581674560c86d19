/* A web server in one file: serves the files of a folder that it is given, one connection after the other.
 *
 *   webapp FOLDER     serve on $PORT (8080)
 *   webapp --check    ask the one that runs on $PORT; for HEALTHCHECK
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "dev"
#endif

static struct sockaddr_in address(in_addr_t host)
{
    const char *port = getenv("PORT");
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
    a.sin_addr.s_addr = htonl(host);
    return a;
}

static int check(void)
{
    struct sockaddr_in a = address(INADDR_LOOPBACK);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    return connect(s, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : 1;
}

static void answer(int client, const char *folder)
{
    char request[4096], body[65536], path[4400], name[256] = "";
    ssize_t got = read(client, request, sizeof request - 1);
    request[got > 0 ? got : 0] = 0;
    int named = sscanf(request, "GET /%255[a-zA-Z0-9_.-]", name);
    snprintf(path, sizeof path, "%s/%s", folder, named == 1 ? name : "index.html");
    FILE *f = name[0] == '.' ? NULL : fopen(path, "r");
    size_t size = f ? fread(body, 1, sizeof body, f) : 0;
    if (f) fclose(f);
    dprintf(client, "HTTP/1.1 %s\r\nServer: webapp/" VERSION "\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
            f ? "200 OK" : "404 Not Found", size);
    if (write(client, body, size) < 0) perror("write");
}

static void stop(int sig)
{
    (void)sig;
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--check") == 0) return check();
    if (argc != 2) {
        fprintf(stderr, "usage: webapp FOLDER\n");
        return 2;
    }
    /* As the first process of its namespace it gets only the signals that it asked for. */
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in a = address(INADDR_ANY);
    int server = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&a, sizeof a) < 0 || listen(server, 16) < 0) {
        perror("webapp");
        return 1;
    }
    fprintf(stderr, "webapp " VERSION " serves %s on port %d as user %d\n", argv[1], ntohs(a.sin_port), getuid());
    for (;;) {
        int client = accept(server, NULL, NULL);
        if (client < 0) continue;
        answer(client, argv[1]);
        close(client);
    }
}
