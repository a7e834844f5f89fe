/* Checks that do not fit the list of cases: decoding, weights in memory of one's own, rounding of packed values. */
#ifndef PLUMB_TEST_SPECIAL_H
#define PLUMB_TEST_SPECIAL_H
#include "plumb/backend.h"
typedef void (*verify_function)(bool good, const char *where, const char *what);
void check_special(const char *where, plumb_backend *be, verify_function verify);
/* Small cases with answers in closed form (known.c); check_special runs them. */
void check_known(const char *where, plumb_backend *be, verify_function verify);
#endif
