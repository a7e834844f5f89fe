/* What the tests of src/report share. */
#ifndef REPORT_TEST_H
#define REPORT_TEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "../../../src/report/report_internal.h"

#define assert_ok(expression)                                                                                          \
    do {                                                                                                               \
        plumb_status status_ = (expression);                                                                           \
        if (status_ != PLUMB_OK) fail_msg("%s: %s", #expression, plumb_error_message());                               \
    } while (0)
#endif
