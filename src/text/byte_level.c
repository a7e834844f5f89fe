/* GPT-2's bytes as characters (Radford et al. 2019): printable Latin-1 characters stand for themselves, the 68 others
 * for U+0100 onwards in order, so that any byte string is a string of visible characters and a vocabulary can be
 * written as text. */
#include "tokenizer.h"

const char plumb_byte_level_regex[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

uint32_t plumb_byte_level_point(uint8_t b) {
    if (b <= 32) return 256u + b;
    if (b < 127) return b;
    if (b <= 160) return 256u + 33 + (b - 127u);
    return b == 173 ? 256u + 67 : b;
}

int plumb_byte_level_byte(uint32_t c) {
    if (c > 255) {
        if (c <= 256 + 32) return (int)c - 256;
        if (c <= 256 + 66) return (int)c - 256 - 33 + 127;
        return c == 256 + 67 ? 173 : -1;
    }
    return c > 32 && plumb_byte_level_point((uint8_t)c) == c ? (int)c : -1;
}
