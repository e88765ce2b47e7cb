/* A disk that fails: preloaded into a process, it lets calls on files below FAULT_ROOT fail with FAULT_ERRNO.
 *
 * FAULT_CALLS names the calls (open read write fsync link move), FAULT_PERMILLE how many of a thousand fail, FAULT_SEED which
 * ones, FAULT_LOG a file that gets one letter per failure. "open" means open for writing. FAULT_CLOCK: by how many seconds
 * the clock of the process is wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static __thread unsigned int state;
static unsigned int threads;

static int below(const char *path) {
    const char *root = getenv("FAULT_ROOT");
    return root && path && !strncmp(path, root, strlen(root));
}

static int fails(const char *call) {
    const char *calls = getenv("FAULT_CALLS"), *rate = getenv("FAULT_PERMILLE"), *seed = getenv("FAULT_SEED");
    if (!calls || !rate || !strstr(calls, call)) return 0;
    if (!state) state = 2654435761u * (seed ? atoi(seed) + 1 : 1) + __sync_add_and_fetch(&threads, 1);
    if (rand_r(&state) % 1000 >= (unsigned int)atoi(rate)) return 0;
    const char *log = getenv("FAULT_LOG");
    int file = log ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0644) : -1;
    if (file >= 0) {
        syscall(SYS_write, file, call, 1);
        syscall(SYS_close, file);
    }
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}

static int below_fd(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                                                   \
    int name(const char *path, int flags, ...) {                                                     \
        va_list more;                                                                                \
        va_start(more, flags);                                                                       \
        mode_t mode = va_arg(more, mode_t);                                                          \
        va_end(more);                                                                                \
        if ((flags & (O_WRONLY | O_RDWR)) && below(path) && fails("open")) return -1;                \
        return REAL(name)(path, flags, mode);                                                        \
    }
OPEN(open)
OPEN(open64)

ssize_t read(int file, void *to, size_t size) {
    return below_fd(file) && fails("read") ? -1 : REAL(read)(file, to, size);
}

ssize_t pread(int file, void *to, size_t size, off_t at) {
    return below_fd(file) && fails("read") ? -1 : REAL(pread)(file, to, size, at);
}

ssize_t pread64(int file, void *to, size_t size, off64_t at) {
    return below_fd(file) && fails("read") ? -1 : REAL(pread64)(file, to, size, at);
}

ssize_t write(int file, const void *from, size_t size) {
    return below_fd(file) && fails("write") ? -1 : REAL(write)(file, from, size);
}

int fsync(int file) { return below_fd(file) && fails("fsync") ? -1 : REAL(fsync)(file); }

int link(const char *from, const char *to) { return below(to) && fails("link") ? -1 : REAL(link)(from, to); }

int linkat(int a, const char *from, int b, const char *to, int flags) {
    return below(to) && fails("link") ? -1 : REAL(linkat)(a, from, b, to, flags);
}

int rename(const char *from, const char *to) { return below(to) && fails("move") ? -1 : REAL(rename)(from, to); }

int clock_gettime(clockid_t clock, struct timespec *to) {
    const char *wrong = getenv("FAULT_CLOCK");
    int failed = syscall(SYS_clock_gettime, clock, to);
    if (!failed && wrong && clock == CLOCK_REALTIME) to->tv_sec += atoi(wrong);
    return failed;
}
