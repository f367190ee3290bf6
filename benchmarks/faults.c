/* What a file system, a clock or a machine can do to a process, done to it at a chosen call: `benchmarks.faults` loads
   this with LD_PRELOAD and arms it in the process that runs a command.

   Calls on paths below `under` whose kind is in `ops` are counted. From the `at`-th on (1 is the first), `times` of them
   (0: all) fail with `error`, or the process gets `signal` before the call is made. A write that is the first to fail
   is made by half, as a full disk and a kill make it. `silly`: a file that is removed or replaced while it is open stays
   in its folder under a name of its own until the process ends, as NFS leaves it. `clock`: the time of day goes back an
   hour at every fourth reading and forward two days at every ninth. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <dirent.h>
#include <stdlib.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, RENAME = 8, REMOVE = 16, MKDIR = 32, READ = 64, LOCK = 128, LINK = 256,
       CREATE = 512, TRUNCATE = 1024 };

static struct { char under[PATH_MAX]; unsigned ops; long at, times; int error, signal, silly, clock, armed; } fault;
static atomic_long seen, ticks, named;
static atomic_int tore;
static __thread int inside;

void fault_arm(const char *under, unsigned ops, long at, long times, int error, int signal, int silly, int clock) {
  strncpy(fault.under, under, PATH_MAX - 1);
  fault.ops = ops; fault.at = at; fault.times = times; fault.error = error; fault.signal = signal;
  fault.silly = silly; fault.clock = clock; fault.armed = 1;
}
long fault_seen(void) { return seen; }

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

static int below(const char *path) {
  size_t n = strlen(fault.under);
  return strncmp(path, fault.under, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static void of_descriptor(int fd, char *out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, out, PATH_MAX - 1);
  out[n < 0 ? 0 : n] = 0;
}

static void of_path(int folder, const char *path, char *out) {
  if (path[0] == '/') { snprintf(out, PATH_MAX, "%s", path); return; }
  char start[PATH_MAX];
  if (folder == AT_FDCWD) { if (!getcwd(start, sizeof start)) start[0] = 0; } else of_descriptor(folder, start);
  snprintf(out, PATH_MAX, "%.2000s/%.2000s", start, path);
}

/* 0: the call is made as it is; -1: it fails, errno is set; 1: it fails or kills, but a write is first made by half. */
static int judge(unsigned op, const char *path, int halves) {
  if (!fault.armed || !(fault.ops & op) || inside || !below(path)) return 0;
  long number = ++seen;
  if (number < fault.at || (fault.times && number >= fault.at + fault.times)) return 0;
  if (!fault.error && !fault.signal) return 0;
  if (halves && !atomic_exchange(&tore, 1)) return 1;
  if (fault.signal) { kill(getpid(), fault.signal); if (fault.signal != SIGKILL) return 0; pause(); }
  errno = fault.error;
  return -1;
}
static int judge_fd(unsigned op, int fd, int halves) {
  if (!fault.armed || !(fault.ops & op) || inside) return 0;
  char path[PATH_MAX];
  of_descriptor(fd, path);
  return judge(op, path, halves);
}
static int judge_at(unsigned op, int folder, const char *path) {
  if (!fault.armed || !(fault.ops & op) || inside || !path) return 0;
  char whole[PATH_MAX];
  of_path(folder, path, whole);
  return judge(op, whole, 0);
}
static void after_half(void) { if (fault.signal) { kill(getpid(), fault.signal); if (fault.signal == SIGKILL) pause(); } }

/* ---- opening */
#define OPENER(name, ...) \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
static unsigned kind_of(int flags) { return flags & O_CREAT ? CREATE : flags & (O_WRONLY | O_RDWR) ? 0 : OPEN; }
int open(const char *p, int flags, ...) { OPENER(open) if (judge_at(kind_of(flags), AT_FDCWD, p)) return -1;
  return REAL(open)(p, flags, mode); }
int open64(const char *p, int flags, ...) { OPENER(open64) if (judge_at(kind_of(flags), AT_FDCWD, p)) return -1;
  return REAL(open64)(p, flags, mode); }
int openat(int d, const char *p, int flags, ...) { OPENER(openat) if (judge_at(kind_of(flags), d, p)) return -1;
  return REAL(openat)(d, p, flags, mode); }
int openat64(int d, const char *p, int flags, ...) { OPENER(openat64) if (judge_at(kind_of(flags), d, p)) return -1;
  return REAL(openat64)(d, p, flags, mode); }

/* ---- writing, reading */
ssize_t write(int fd, const void *data, size_t n) {
  int j = judge_fd(WRITE, fd, n > 1);
  if (j < 0) return -1;
  if (j > 0) { ssize_t half = REAL(write)(fd, data, n / 2); after_half(); return half; }
  return REAL(write)(fd, data, n);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { if (judge_fd(WRITE, fd, 0)) return -1;
  return REAL(pwrite64)(fd, data, n, at); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { if (judge_fd(WRITE, fd, 0)) return -1;
  return REAL(pwrite)(fd, data, n, at); }
ssize_t writev(int fd, const struct iovec *v, int n) { if (judge_fd(WRITE, fd, 0)) return -1;
  return REAL(writev)(fd, v, n); }
ssize_t sendfile(int out, int in, off_t *at, size_t n) { if (judge_fd(WRITE, out, 0)) return -1;
  return REAL(sendfile)(out, in, at, n); }
ssize_t sendfile64(int out, int in, off_t *at, size_t n) { if (judge_fd(WRITE, out, 0)) return -1;
  return REAL(sendfile64)(out, in, at, n); }
ssize_t copy_file_range(int in, off_t *a, int out, off_t *b, size_t n, unsigned f) { if (judge_fd(WRITE, out, 0)) return -1;
  return REAL(copy_file_range)(in, a, out, b, n, f); }
ssize_t read(int fd, void *data, size_t n) { if (judge_fd(READ, fd, 0)) return -1; return REAL(read)(fd, data, n); }
ssize_t pread(int fd, void *data, size_t n, off_t at) { if (judge_fd(READ, fd, 0)) return -1;
  return REAL(pread)(fd, data, n, at); }
ssize_t pread64(int fd, void *data, size_t n, off_t at) { if (judge_fd(READ, fd, 0)) return -1;
  return REAL(pread64)(fd, data, n, at); }
int fsync(int fd) { if (judge_fd(SYNC, fd, 0)) return -1; return REAL(fsync)(fd); }
int fdatasync(int fd) { if (judge_fd(SYNC, fd, 0)) return -1; return REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t n) { if (judge_fd(TRUNCATE, fd, 0)) return -1; return REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off_t n) { if (judge_fd(TRUNCATE, fd, 0)) return -1; return REAL(ftruncate64)(fd, n); }
int flock(int fd, int operation) { if (judge_fd(LOCK, fd, 0)) return -1;
  extern int flock(int, int); return REAL(flock)(fd, operation); }

/* ---- names */
static int is_open(const char *path) {
  struct stat file, other;
  if (lstat(path, &file) || !S_ISREG(file.st_mode)) return 0;
  DIR *folder = opendir("/proc/self/fd");
  int found = 0;
  for (struct dirent *one; folder && !found && (one = readdir(folder));)
    found = !fstat(atoi(one->d_name), &other) && other.st_ino == file.st_ino && other.st_dev == file.st_dev;
  if (folder) closedir(folder);
  FILE *maps = found ? NULL : fopen("/proc/self/maps", "r");
  char line[PATH_MAX + 128];
  while (maps && !found && fgets(line, sizeof line, maps)) {
    unsigned long inode;
    found = sscanf(line, "%*s %*s %*s %*s %lu", &inode) == 1 && inode == file.st_ino;
  }
  if (maps) fclose(maps);
  return found;
}
/* An open file that is about to lose its name keeps one that starts with .nfs; 1: it was given one. */
static int kept_by_nfs(const char *path) {
  if (!fault.armed || !fault.silly || inside || !below(path)) return 0;
  inside = 1;
  int kept = 0;
  if (is_open(path)) {
    char other[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(other, sizeof other, "%.*s/.nfs%016lx", (int)(slash - path), path, (long)++named);
    kept = REAL(rename)(path, other) == 0;
  }
  inside = 0;
  return kept;
}
int renameat(int a, const char *from, int b, const char *to) {
  if (judge_at(RENAME, b, to)) return -1;
  char target[PATH_MAX];
  of_path(b, to, target);
  kept_by_nfs(target);
  return REAL(renameat)(a, from, b, to);
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }
int unlinkat(int d, const char *path, int flags) {
  if (judge_at(REMOVE, d, path)) return -1;
  char whole[PATH_MAX];
  of_path(d, path, whole);
  if (!(flags & AT_REMOVEDIR) && kept_by_nfs(whole)) return 0;
  return REAL(unlinkat)(d, path, flags);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { if (judge_at(REMOVE, AT_FDCWD, path)) return -1; return REAL(rmdir)(path); }
int mkdir(const char *path, mode_t mode) { if (judge_at(MKDIR, AT_FDCWD, path)) return -1; return REAL(mkdir)(path, mode); }
int mkdirat(int d, const char *path, mode_t mode) { if (judge_at(MKDIR, d, path)) return -1;
  return REAL(mkdirat)(d, path, mode); }
int link(const char *a, const char *b) { if (judge_at(LINK, AT_FDCWD, b)) return -1; return REAL(link)(a, b); }
int linkat(int x, const char *a, int y, const char *b, int f) { if (judge_at(LINK, y, b)) return -1;
  return REAL(linkat)(x, a, y, b, f); }
int symlink(const char *a, const char *b) { if (judge_at(LINK, AT_FDCWD, b)) return -1; return REAL(symlink)(a, b); }

/* ---- the clock */
static long shift(void) {
  if (!fault.armed || !fault.clock) return 0;
  long n = ++ticks;
  return -3600 * (n / 4) + 2 * 86400 * (n / 9);
}
int clock_gettime(clockid_t which, struct timespec *t) {
  int failed = REAL(clock_gettime)(which, t);
  if (!failed && which == CLOCK_REALTIME) t->tv_sec += shift();
  return failed;
}
time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
