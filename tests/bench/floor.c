/*
 * The floor: the minimal cost of a fence through files, as a comparison for the agent and the watcher.
 *
 * It has the same steps: the client starts, reads its options, writes a request and renames it, waits by
 * inotify on its own file, reads the answer and exits; the server claims by rename, forks and runs the
 * device, renames an answer into place and removes the claim. It has nothing else: no checks, no
 * deadline, no lock, no log, no sync.
 *
 *   floor server DIR PROGRAM ARGUMENT...   writes a line when it is ready
 *   floor client DIR                       options on standard input
 *   floor print BYTES
 *
 * DIR holds requests/, claimed/ and responses/.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUNNING_MAX 1024
#define POLL_MS 500 /* The agent's default poll_interval, if inotify is not available. */

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void put(const char *path, const char *text, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, text, length) == (ssize_t)length && close(fd) == 0, path);
}

static int client(void)
{
	char options[4096], temporary[64], request[64], response[64], answer[16];
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct timespec now;
	size_t length = 0;
	ssize_t count;

	while ((count = read(0, options + length, sizeof options - length)) > 0)
		length += count;
	clock_gettime(CLOCK_REALTIME, &now);
	int id = getpid();
	snprintf(temporary, sizeof temporary, "requests/.%d-%ld.tmp", id, now.tv_nsec);
	snprintf(request, sizeof request, "requests/%d-%ld.json", id, now.tv_nsec);
	snprintf(response, sizeof response, "responses/%d-%ld.json", id, now.tv_nsec);

	put(temporary, options, length);
	int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (inotify >= 0)
		inotify_add_watch(inotify, temporary, IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF);
	must(rename(temporary, request) == 0, request);
	struct pollfd waited = { .fd = inotify, .events = POLLIN };
	for (;;) {
		int fd = open(response, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			count = read(fd, answer, sizeof answer);
			return !(count == 3 && memcmp(answer, "ok\n", 3) == 0);
		}
		poll(&waited, 1, POLL_MS);
		while (inotify >= 0 && read(inotify, events, sizeof events) > 0)
			;
	}
}

static struct { pid_t pid; char name[64]; } running[RUNNING_MAX];

static void start(const char *name, char **argv, const sigset_t *before)
{
	char request[128], claimed[128];
	int slot = 0;

	snprintf(request, sizeof request, "requests/%s", name);
	snprintf(claimed, sizeof claimed, "claimed/%s", name);
	if (rename(request, claimed) != 0)
		return;
	while (slot < RUNNING_MAX && running[slot].pid != 0)
		slot++;
	must(slot < RUNNING_MAX, "slots");
	pid_t pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, before, NULL);
		execv(argv[0], argv);
		_exit(127);
	}
	running[slot].pid = pid;
	snprintf(running[slot].name, sizeof running[slot].name, "%s", name);
}

static void finish(pid_t pid, int status)
{
	char temporary[128], response[128], claimed[128];
	int slot = 0;

	while (slot < RUNNING_MAX && running[slot].pid != pid)
		slot++;
	must(slot < RUNNING_MAX, "child");
	const char *name = running[slot].name;
	snprintf(temporary, sizeof temporary, "responses/.%s.tmp", name);
	snprintf(response, sizeof response, "responses/%s", name);
	snprintf(claimed, sizeof claimed, "claimed/%s", name);
	put(temporary, status == 0 ? "ok\n" : "no\n", 3);
	must(rename(temporary, response) == 0, response);
	must(unlink(claimed) == 0, claimed);
	running[slot].pid = 0;
}

static _Noreturn void server(char **argv)
{
	char events[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct signalfd_siginfo signal;
	sigset_t children, before;
	pid_t pid;
	ssize_t count;
	int status;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, &before);
	int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int ended = signalfd(-1, &children, SFD_NONBLOCK | SFD_CLOEXEC);
	must(inotify >= 0 && ended >= 0, "inotify, signalfd");
	must(inotify_add_watch(inotify, "requests", IN_MOVED_TO) >= 0, "requests");
	must(write(1, "ready\n", 6) == 6, "standard output");
	struct pollfd waited[] = {
		{ .fd = inotify, .events = POLLIN },
		{ .fd = ended, .events = POLLIN },
	};
	for (;;) {
		poll(waited, 2, -1);
		while ((count = read(inotify, events, sizeof events)) > 0)
			for (char *at = events; at < events + count;) {
				struct inotify_event *event = (struct inotify_event *)at;
				if (event->len > 0 && event->name[0] != '.')
					start(event->name, argv, &before);
				at += sizeof *event + event->len;
			}
		if (read(ended, &signal, sizeof signal) > 0)
			while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
				finish(pid, status);
	}
}

static int print(long length)
{
	char *text = malloc(length);
	must(text != NULL, "memory");
	memset(text, '\n', length);
	return write(1, text, length) != length;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "print") == 0)
		return print(atol(argv[2]));
	must(argc >= 3 && chdir(argv[2]) == 0, "usage: floor server|client DIR");
	umask(077);
	if (strcmp(argv[1], "client") == 0)
		return client();
	must(argc >= 4, "usage: floor server DIR PROGRAM");
	server(argv + 3);
}
