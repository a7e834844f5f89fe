/* Stop strings: where a completion ends by its text and not by a token.  Local.
 *
 * The rule is transformers' StopStringCriteria: a completion stops when the last token brings a stop string to its end, wherever in that
 * token's text the end lies; the text keeps the stop string and what the token has behind it. Texts are compared as bytes before invalid
 * UTF-8 is repaired, so that a character may be spread over tokens; a token counts with its text in the middle of a sentence (with its
 * leading space); special tokens have none. */
#ifndef PLUMB_STOPS_H
#define PLUMB_STOPS_H
#include "plumb/text.h"

typedef struct plumb_stops plumb_stops; /* immutable; threads may share it */
/* The bytes of every token are looked up once, here (4 to 30 ms). Borrows nothing. An empty string is PLUMB_E_CONFIG. n may be 0. */
plumb_status plumb_stops_create(plumb_stops **out, const plumb_tokenizer *t, char *const *strings, int n) PLUMB_CHECKED;
void plumb_stops_free(plumb_stops *s);
/* ids: the completion so far, [count]. Does a stop string end within the text of the last id? NULL never stops. */
bool plumb_stops_hit(const plumb_stops *s, const int32_t *ids, int64_t count);
#endif
