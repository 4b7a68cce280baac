/* The first and only process of emulate.sh's machine: runs /program, prints how it ended, and switches the machine off. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/io.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argc;
    int status = 0;
    argv[0] = "/program";
    const pid_t child = fork();
    if (child == 0) {
        execv(argv[0], argv);
        _exit(127);
    }
    waitpid(child, &status, 0);
    printf("\n==exit %d\n", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    fflush(stdout);
    usleep(200000); /* the serial port is slow */
    ioperm(0x8900, 1, 1);
    for (const char *s = "Shutdown"; *s; s++)
        outb(*s, 0x8900); /* bochs ends */
    for (;;)
        pause();
}
