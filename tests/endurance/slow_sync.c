/* Preloaded into the proxy: a disk that takes its time to sync, and none at all while the file named by SLOW_SYNC_STALL exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_disk(void) {
    const char *most = getenv("SLOW_SYNC_MILLISECONDS"), *stall = getenv("SLOW_SYNC_STALL");
    if (most && atoi(most) > 0) usleep((useconds_t)(rand() % (atoi(most) * 1000)));
    while (stall && access(stall, F_OK) == 0) usleep(5000);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_for_disk();
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_for_disk();
    return real(fd);
}
