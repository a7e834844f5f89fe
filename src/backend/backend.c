/* Choosing a back end, its fault latch, and guarded memory.
 *
 * Everything is in one file on purpose: the back ends are libraries below this one and call back into it, so the linker
 * must find the selection, the latch and the memory in the object that it has already taken.
 *
 * Guarded memory: every mapping that a back end asks for is in one list. In guard mode (PLUMB_GUARD=1) the list is made
 * accessible when the outermost operation begins and PROT_NONE when it ends:
 *
 *   depth  0: PROT_NONE | enter -> 1: read/write | (an operation may run others) | leave -> 0: PROT_NONE
 *
 * A stray host read of device memory then dies at the place of the mistake, on a machine that has no device. */
#include "internal.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool plumb_storage_named(const char *name, plumb_storage *out) {
    static const char *const names[] = {
        [PLUMB_STORE_NATIVE] = "native", [PLUMB_STORE_INT8] = "int8", [PLUMB_STORE_INT4] = "int4", [PLUMB_STORE_W8A8] = "w8a8",
        [PLUMB_STORE_W4A8] = "w4a8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return *out = (plumb_storage)i, true;
    return false;
}

/* --- what this processor has ------------------------------------------------------------------ */
enum { ISA_AVX512BF16, ISA_AVX512, ISA_AVX2, ISA_PLAIN, ISA_COUNT }; /* best first */
static const char *const isa_names[ISA_COUNT] = {"avx512bf16", "avx512", "avx2", "plain"};

#if defined(__x86_64__)
/* The operating system must save the registers too: bits of XCR0 (SSE and AVX 0x6; opmask and ZMM 0xe0). */
static bool os_saves(uint32_t bits) {
    uint32_t a = 1, b, c = 0, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!(c >> 27 & 1)) return false; /* OSXSAVE: xgetbv would trap */
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & bits) == bits;
}

static bool has_isa(int isa) {
    __builtin_cpu_init();
    bool avx2 = os_saves(0x06) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    bool avx512 = avx2 && os_saves(0xe6) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    switch (isa) {
    case ISA_AVX512BF16: return avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    case ISA_AVX512: return avx512;
    case ISA_AVX2: return avx2;
    default: return true;
    }
}
#else
static bool has_isa(int isa) {
    return isa == ISA_PLAIN;
}
#endif

static plumb_status choose_isa(const char *wanted, int *isa) {
    if (!wanted || !strcmp(wanted, "auto")) {
        for (*isa = 0; !has_isa(*isa);) ++*isa;
        return PLUMB_OK;
    }
    for (*isa = 0; *isa < ISA_COUNT; ++*isa)
        if (!strcmp(wanted, isa_names[*isa])) break;
    if (*isa == ISA_COUNT)
        return plumb_error(PLUMB_E_CONFIG,
                           "instruction set '%s' is unknown; auto, avx512bf16, avx512, avx2 and plain are known",
                           wanted);
    if (!has_isa(*isa)) {
        int best;
        for (best = 0; !has_isa(best);) ++best;
        return plumb_error(PLUMB_E_UNSUPPORTED,
                           "this processor or its operating system does not have '%s'; the best that it has is '%s'",
                           wanted, isa_names[best]);
    }
    return PLUMB_OK;
}

/* --- creation --------------------------------------------------------------------------------- */
static plumb_status create_cpu(plumb_backend *be, const plumb_backend_options *o, const char *precision,
                               const char **note) {
    int isa;
    PLUMB_TRY(choose_isa(o->isa, &isa));
    bool hardware = isa == ISA_AVX512BF16, bf16 = hardware;
    if (!strcmp(precision, "fp32")) bf16 = false;
    if (!strcmp(precision, "bf16") && !hardware) {
        bf16 = o->emulate_bf16;
        if (!bf16) *note = "precision bf16 was asked for, but the processor has no bf16 products: computing in fp32";
    }
    be->isa = isa_names[isa];
    be->compute = bf16 ? PLUMB_COMPUTE_BF16 : PLUMB_COMPUTE_F32;
    return plumb_cpu_init(be, be->isa, bf16);
}

static plumb_status create_ref(plumb_backend *be, const plumb_backend_options *o, const char *precision,
                               const char **note) {
    if (o->isa && strcmp(o->isa, "auto") != 0 && strcmp(o->isa, "fp64") != 0)
        return plumb_error(PLUMB_E_UNSUPPORTED, "the back end 'ref' has no instruction set '%s'; it computes in fp64",
                           o->isa);
    if (strcmp(precision, "auto") != 0) *note = "the back end 'ref' computes in fp64, whatever the precision";
    be->ops = &plumb_ref_ops;
    be->isa = "fp64";
    be->compute = PLUMB_COMPUTE_F32;
    return plumb_ref_init(be, be->isa, false);
}

static plumb_status check_options(const plumb_backend_options *o, const char *precision) {
    if (!o->backend || (strcmp(o->backend, "cpu") != 0 && strcmp(o->backend, "ref") != 0))
        return plumb_error(PLUMB_E_UNSUPPORTED, "there is no back end '%s'; there are 'cpu' and 'ref'",
                           o->backend ? o->backend : "(none)");
    if (strcmp(precision, "auto") != 0 && strcmp(precision, "fp32") != 0 && strcmp(precision, "bf16") != 0)
        return plumb_error(PLUMB_E_CONFIG, "precision '%s' is unknown; auto, fp32 and bf16 are known", precision);
    if (o->threads < 1)
        return plumb_error(PLUMB_E_CONFIG, "a back end needs at least one thread; %d were asked for", o->threads);
    return PLUMB_OK;
}

plumb_status plumb_backend_create(plumb_backend **out, const plumb_backend_options *o, const char **note) {
    const char *precision = o->precision ? o->precision : "auto", *said = NULL, *guard = getenv("PLUMB_GUARD");
    *out = NULL;
    if (note) *note = NULL;
    PLUMB_TRY(check_options(o, precision));
    plumb_backend *be;
    PLUMB_TRY(plumb_alloc(&be, 1, sizeof *be, "a back end"));
    be->threads = o->threads;
    be->guard = guard && !strcmp(guard, "1");
    plumb_status status =
        strcmp(o->backend, "ref") == 0 ? create_ref(be, o, precision, &said) : create_cpu(be, o, precision, &said);
    if (status != PLUMB_OK) {
        plumb_backend_free(be);
        return status;
    }
    if (note) *note = said;
    *out = be;
    return PLUMB_OK;
}

/* --- the fault latch -------------------------------------------------------------------------- */
plumb_status plumb_backend_fault(const plumb_backend *be) {
    return be->fault == PLUMB_OK ? PLUMB_OK : plumb_error(be->fault, "%s", be->fault_message);
}

void plumb_backend_set_fault(plumb_backend *be, plumb_status s, const char *format, ...) {
    if (be->fault != PLUMB_OK || s == PLUMB_OK) return; /* the first fault is the cause; later ones follow from it */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(be->fault_message, sizeof be->fault_message, format, arguments);
    va_end(arguments);
    be->fault = s;
}

/* --- guarded memory --------------------------------------------------------------------------- */
typedef struct mapping {
    void *memory;
    size_t bytes; /* whole pages */
    struct mapping *next;
} mapping;
static const size_t large_page = (size_t)2 << 20;

static void protect(plumb_backend *be, const mapping *m, int protection) {
    if (mprotect(m->memory, m->bytes, protection) != 0) /* splitting mappings can exceed the kernel's limit */
        plumb_backend_set_fault(be, PLUMB_E_DEVICE, "guard mode: mprotect of %zu bytes: %s", m->bytes, strerror(errno));
}

static void protect_all(plumb_backend *be, int protection) {
    for (const mapping *m = be->guarded; m; m = m->next) protect(be, m, protection);
}

bool plumb_backend_enter(plumb_backend *be) {
    if (be->fault != PLUMB_OK) return false;
    if (be->depth == 0 && be->guard) protect_all(be, PROT_READ | PROT_WRITE);
    if (be->fault != PLUMB_OK) return false;
    be->depth++;
    return true;
}

void plumb_backend_leave(plumb_backend *be) {
    be->depth--;
    if (be->depth == 0 && be->guard) protect_all(be, PROT_NONE);
}

/* Maps `bytes`; from 2 MiB on the address is a multiple of 2 MiB so that large pages can be used (10-20 % of
 * bandwidth). */
static void *map_pages(size_t bytes) {
    bool large = bytes >= large_page;
    size_t room = large ? bytes + large_page : bytes;
    char *base = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    if (!large) return base;
    size_t before = (large_page - (uintptr_t)base % large_page) % large_page, after = large_page - before;
    if (before) munmap(base, before);
    if (after) munmap(base + before + bytes, after);
    madvise(base + before, bytes, MADV_HUGEPAGE); /* advice: it may be refused */
    return base + before;
}

void *plumb_guarded_alloc(plumb_backend *be, size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    mapping *m = NULL;
    if (bytes > PTRDIFF_MAX - 2 * large_page) {
        plumb_error(PLUMB_E_MEMORY, "out of memory: %zu bytes for a back end", bytes);
        return NULL;
    }
    if (plumb_alloc(&m, 1, sizeof *m, "the list of mappings") != PLUMB_OK) return NULL;
    m->bytes = ((bytes ? bytes : 1) + page - 1) / page * page;
    m->memory = map_pages(m->bytes);
    if (!m->memory) {
        plumb_error(PLUMB_E_MEMORY, "out of memory: %zu bytes for a back end that holds %lld: %s", m->bytes,
                    (long long)be->bytes, strerror(errno));
        free(m);
        return NULL;
    }
    m->next = be->guarded;
    be->guarded = m;
    be->bytes += (int64_t)m->bytes;
    if (be->bytes > be->peak_bytes) be->peak_bytes = be->bytes;
    if (be->guard && be->depth == 0) protect(be, m, PROT_NONE);
    return m->memory;
}

static void unmap(plumb_backend *be, mapping *m) {
    munmap(m->memory, m->bytes);
    be->bytes -= (int64_t)m->bytes;
    free(m);
}

void plumb_guarded_free(plumb_backend *be, void *memory) {
    if (!memory) return;
    for (mapping *m = be->guarded, *previous = NULL; m; previous = m, m = m->next) {
        if (m->memory != memory) continue;
        if (previous)
            previous->next = m->next;
        else
            be->guarded = m->next;
        unmap(be, m);
        return;
    }
    PLUMB_BUG("guarded memory at %p was freed twice or never allocated", memory);
}

void plumb_backend_free(plumb_backend *be) {
    if (!be) return;
    if (be->ops == &plumb_ref_ops) plumb_ref_exit(be);
    else plumb_cpu_exit(be);
    for (mapping *m = be->guarded, *next; m; m = next) { /* what the caller did not free */
        next = m->next;
        unmap(be, m);
    }
    free(be);
}
