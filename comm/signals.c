/* Signals: the handlers note that one came, and nothing else.
 *
 * mpirun and Slurm send the same signal more than once (mpirun forwards USR1 twice, scancel signals the step and the
 * ranks), so noting it twice must mean the same as once. mpirun also sends TERM to the survivors of a rank that died: a
 * checkpoint inside the handler, or straight after it, would wait for the dead. The trainer asks plumb_comm_signal() at
 * its agreement point, where all ranks decide alike.
 *
 * SIGXFSZ is ignored, so that a file-size limit is a write error (EFBIG) with a message and not a silent death. */
#include <signal.h>
#include "internal.h"

static volatile sig_atomic_t save_wanted, leave_wanted;

static void note_signal(int number) {
    if (number == SIGTERM || number == SIGINT)
        leave_wanted = 1;
    else
        save_wanted = 1;
}

void comm_signals_install(void) {
    static const int noted[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof noted / sizeof *noted; i++) sigaction(noted[i], &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGXFSZ, &ignore, NULL);
}

plumb_signal plumb_comm_signal(void) {
    if (leave_wanted) return PLUMB_SIGNAL_TERM;
    return save_wanted ? PLUMB_SIGNAL_SAVE : PLUMB_SIGNAL_NONE;
}
