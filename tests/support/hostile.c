/* What a hostile RUN does, as far as busybox cannot: hostile COMMAND. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Locks /, once kiln has lost its own lock, and keeps it. */
static int lock(void) {
    int root = open("/", O_RDONLY | O_DIRECTORY);
    if (root < 0 || flock(root, LOCK_EX) != 0) return 1;
    pause();
    return 0;
}

/* Makes a process that makes a process, and so on; each ends at once, and each is in a session of its own. */
static void hop(void) {
    for (;;) {
        pid_t pid = fork();
        if (pid > 0) _exit(0);
        if (pid == 0) setsid();
    }
}

/* Makes as many processes as there may be, and goes on. */
static void bomb(void) {
    signal(SIGTERM, SIG_IGN);
    for (;;) {
        if (fork() == 0) setsid();
    }
}

/* Uses memory until there is none. */
static void eat(void) {
    for (;;) {
        char *some = malloc(1 << 20);
        if (some) memset(some, 1, 1 << 20);
    }
}

/* Uses shared memory, which outlives its process. */
static void share(void) {
    for (;;) {
        int id = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600);
        char *some = shmat(id, 0, 0);
        if (id >= 0 && some != (char *)-1) memset(some, 1, 1 << 20), shmdt(some);
    }
}

/* Has a name that is no text, and ignores all signals. */
static void hide(void) {
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
    prctl(PR_SET_NAME, "\xff\xfe");
    for (;;) pause();
}

static void *wait_for_ever(void *nothing) {
    for (;;) pause();
    return nothing;
}

/* Looks as if it had ended: its first thread has. */
static void headless(void) {
    pthread_t thread;
    prctl(PR_SET_NAME, "headless");
    if (pthread_create(&thread, 0, wait_for_ever, 0) == 0) syscall(SYS_exit, 0);
}

int main(int count, char **args) {
    const char *command = count > 1 ? args[1] : "";
    if (!strcmp(command, "lock")) return lock();
    if (!strcmp(command, "hide")) hide();
    if (!strcmp(command, "headless")) headless();
    if (!strcmp(command, "hop")) hop();
    if (!strcmp(command, "bomb")) bomb();
    if (!strcmp(command, "eat")) eat();
    if (!strcmp(command, "share")) share();
    return 2;
}
