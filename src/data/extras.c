/* Fields beside the texts: a pair's margin, a rated record's label, the answer that rewards compare with.
 *
 * An answer is kept as text whatever its type, because that is what it is compared as; a number is written as briefly
 * as it reads back to the same value, so that 0.1 stays 0.1. */
#include "example.h"
#include "records.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static plumb_status read_number(const json_t *value, const char *field, bool truth, double *out) {
    if (json_is_number(value))
        *out = json_number_value(value);
    else if (truth && json_is_boolean(value))
        *out = json_is_true(value);
    else
        return plumb_error(PLUMB_E_DATA, "%s: found %s, expected a number%s (or field_%s for another field)", field,
                           json_kind_name(value), truth ? ", true or false" : "", truth ? "label" : "margin");
    return PLUMB_OK;
}

/* Whole numbers as such, 7.0 too. One beyond 2^53 would be compared with other digits than it was written with. */
static plumb_status append_number(plumb_str *out, const json_t *value, const char *field) {
    if (json_is_integer(value)) return plumb_str_printf(out, "%lld", (long long)json_integer_value(value));
    double number = json_real_value(value);
    if (number == floor(number) && fabs(number) > 0x1p53)
        return plumb_error(PLUMB_E_DATA, "%s: found a number of more digits than are kept (%.17g), expected it as a string", field, number);
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    return plumb_str_append(out, text, strlen(text));
}

static plumb_status read_answer(example_extras *x, const json_t *value, const char *field) {
    x->has_answer = true;
    if (json_is_string(value)) return plumb_str_append(&x->answer, json_string_value(value), json_string_length(value));
    if (json_is_number(value)) return append_number(&x->answer, value, field);
    return plumb_error(PLUMB_E_DATA, "%s: found %s, expected a string or a number (or field_answer for another field)",
                       field, json_kind_name(value));
}

plumb_status extras_read(example_extras *x, const example_rules *rules, const json_t *record, bool pair) {
    const json_t *value;
    const field_names *f = &rules->field;
    x->margin = 0;
    x->label = NAN;
    x->has_answer = false;
    x->answer.length = 0;
    if (rules->kind == PLUMB_DATA_SFT) return PLUMB_OK;
    if (rules->kind == PLUMB_DATA_PAIRS)
        return (value = json_present(record, f->margin)) ? read_number(value, f->margin, false, &x->margin) : PLUMB_OK;
    if (rules->kind == PLUMB_DATA_RATED && !pair && (value = json_present(record, f->label)))
        PLUMB_TRY(read_number(value, f->label, true, &x->label));
    return (value = json_present(record, f->answer)) ? read_answer(x, value, f->answer) : PLUMB_OK;
}
