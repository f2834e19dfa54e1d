/* Makes this machine's disk a slower one: each fsync(2) and fdatasync(2) takes SLOW_SYNC_US microseconds longer.
 * For LD_PRELOAD; bench/run builds it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int slowly(const char *name, int file) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *more = getenv("SLOW_SYNC_US");
    int result = sync(file);
    if (more)
        usleep((useconds_t)atoi(more));
    return result;
}

int fdatasync(int file) { return slowly("fdatasync", file); }
int fsync(int file) { return slowly("fsync", file); }
