/* A library preloaded into the proxy to make its disk slow, stall or fail. Each variable is a number or a file name:
 * DISK_SYNC_MILLISECONDS: the maximum duration of a sync.
 * DISK_STALL: while this file exists, no sync returns, and other threads cannot read the size of the database. When one waits, a
 *   file of the same name with ".reached" is created.
 * DISK_WRITES_FAIL, DISK_SYNCS_FAIL: while this file exists, writes at a position, or syncs, fail with EIO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_on(const char *variable) {
    const char *file = getenv(variable);
    return file && access(file, F_OK) == 0;
}

static void note_stall(void) {
    char reached[4096];
    snprintf(reached, sizeof reached, "%s.reached", getenv("DISK_STALL"));
    int fd = open(reached, O_CREAT | O_WRONLY, 0600);
    if (fd >= 0) close(fd);
}

static int sync_with(const char *name, int fd) {
    const char *most = getenv("DISK_SYNC_MILLISECONDS");
    if (most && atoi(most) > 0) usleep((useconds_t)(rand() % (atoi(most) * 1000)));
    if (is_on("DISK_STALL")) note_stall();
    while (is_on("DISK_STALL")) usleep(5000);
    if (is_on("DISK_SYNCS_FAIL")) return errno = EIO, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fdatasync(int fd) { return sync_with("fdatasync", fd); }

int fsync(int fd) { return sync_with("fsync", fd); }

int statx(int directory, const char *path, int flags, unsigned mask, struct statx *into) {
    static int (*real)(int, const char *, int, unsigned, struct statx *);
    if (!real) real = (int (*)(int, const char *, int, unsigned, struct statx *))dlsym(RTLD_NEXT, "statx");
    const char *name = strrchr(path, '/');
    char thread[16] = "";
    prctl(PR_GET_NAME, thread);
    // The writing thread must stall in a sync, because tests wait for that.
    int stalls = name && strcmp(name, "/pushward.redb") == 0 && strcmp(thread, "store") != 0;
    while (stalls && is_on("DISK_STALL")) usleep(5000);
    return real(directory, path, flags, mask, into);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (is_on("DISK_WRITES_FAIL")) return errno = EIO, -1;
    return real(fd, bytes, length, at);
}
