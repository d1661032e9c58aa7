/* getaddrinfo(3) for tests: "hanging.test" is never answered; "late.test" is 127.0.0.1 from when the file $NAMES_ANSWER exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    lookup *next = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    if (node && !strcmp(node, "hanging.test"))
        for (;;)
            pause();
    if (node && !strcmp(node, "late.test")) {
        while (access(getenv("NAMES_ANSWER"), F_OK))
            usleep(5000);
        node = "127.0.0.1";
    }
    return next(node, service, hints, found);
}
