/* Creation, the fault latch, guard mode, and memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "plumb/backend.h"

static const char *const names[] = {"ref", "cpu"};

static plumb_backend *open_backend(const char *name) {
    plumb_backend *be;
    plumb_backend_options o = {.backend = name, .isa = "auto", .precision = "auto", .threads = 1};
    assert_int_equal(plumb_backend_create(&be, &o, NULL), PLUMB_OK);
    return be;
}

static plumb_status try_options(plumb_backend_options o, const char **note) {
    plumb_backend *be;
    plumb_status s = plumb_backend_create(&be, &o, note);
    if (s != PLUMB_OK) assert_null(be);
    plumb_backend_free(be);
    return s;
}

static void every_slot_is_filled(void **state) {
    (void)state;
    static const char *const isas[] = {"fp64", "plain", "avx2", "avx512",
                                       "avx512bf16"}; /* a table may differ between instruction sets */
    for (int i = 0; i < 5; i++) {
        plumb_backend *be;
        plumb_backend_options o = {.backend = i ? "cpu" : "ref", .isa = isas[i], .threads = 1};
        plumb_status s = plumb_backend_create(&be, &o, NULL);
        if (i >= 2 && s == PLUMB_E_UNSUPPORTED) continue;
        assert_int_equal(s, PLUMB_OK);
        assert_string_equal(be->ops->name, i ? "cpu" : "ref");
        assert_string_equal(be->isa, isas[i]);
        for (size_t at = 0; at < sizeof(plumb_backend_ops); at += sizeof(void *)) {
            void *slot;
            memcpy(&slot, (const char *)be->ops + at, sizeof slot);
            if (!slot) fail_msg("slot %zu of %s %s is empty", at / sizeof(void *), be->ops->name, isas[i]);
        }
        plumb_backend_free(be);
    }
}

static void options(void **state) {
    (void)state;
    const char *note = "x";
    assert_int_equal(try_options((plumb_backend_options){.backend = "ref", .threads = 1}, &note), PLUMB_OK);
    assert_null(note);
    assert_int_equal(try_options((plumb_backend_options){.backend = "cpu", .threads = 2}, &note), PLUMB_OK);
    assert_null(note);
    assert_int_equal(try_options((plumb_backend_options){.backend = "gpu", .threads = 1}, &note), PLUMB_E_UNSUPPORTED);
    assert_int_equal(try_options((plumb_backend_options){.threads = 1}, &note), PLUMB_E_UNSUPPORTED);
    assert_int_equal(try_options((plumb_backend_options){.backend = "cpu"}, &note), PLUMB_E_CONFIG);
    assert_int_equal(try_options((plumb_backend_options){.backend = "cpu", .threads = -3}, &note), PLUMB_E_CONFIG);
    assert_int_equal(try_options((plumb_backend_options){.backend = "cpu", .precision = "fp16", .threads = 1}, &note),
                     PLUMB_E_CONFIG);
    assert_non_null(strstr(plumb_error_message(), "fp16"));
    assert_int_equal(try_options((plumb_backend_options){.backend = "cpu", .isa = "avx", .threads = 1}, &note),
                     PLUMB_E_CONFIG);
    assert_int_equal(try_options((plumb_backend_options){.backend = "ref", .isa = "avx2", .threads = 1}, &note),
                     PLUMB_E_UNSUPPORTED);
    assert_int_equal(try_options((plumb_backend_options){.backend = "ref", .precision = "bf16", .threads = 1}, &note),
                     PLUMB_OK);
    assert_non_null(note);
}

/* plain is everywhere and has no bf16: fp32 is used and said, unless emulation is asked for. */
static void precision(void **state) {
    (void)state;
    plumb_backend *be;
    const char *note;
    plumb_backend_options o = {.backend = "cpu", .isa = "plain", .precision = "bf16", .threads = 1};
    assert_int_equal(plumb_backend_create(&be, &o, &note), PLUMB_OK);
    assert_int_equal(be->compute, PLUMB_COMPUTE_F32);
    assert_string_equal(be->isa, "plain");
    assert_non_null(strstr(note, "fp32"));
    plumb_backend_free(be);
    o.emulate_bf16 = true;
    assert_int_equal(plumb_backend_create(&be, &o, &note), PLUMB_OK);
    assert_int_equal(be->compute, PLUMB_COMPUTE_BF16);
    assert_null(note);
    plumb_backend_free(be);
    o.precision = "auto";
    assert_int_equal(plumb_backend_create(&be, &o, &note), PLUMB_OK);
    assert_int_equal(be->compute, PLUMB_COMPUTE_F32);
    plumb_backend_free(be);
    o = (plumb_backend_options){.backend = "cpu", .threads = 1};
    assert_int_equal(plumb_backend_create(&be, &o, &note), PLUMB_OK);
    bool hardware = strcmp(be->isa, "avx512bf16") == 0;
    assert_int_equal(be->compute, hardware ? PLUMB_COMPUTE_BF16 : PLUMB_COMPUTE_F32);
    plumb_backend_free(be);
}

static void the_first_fault_stays(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        plumb_backend *be = open_backend(names[i]);
        plumb_buffer *b, *more;
        plumb_weight *w;
        plumb_operand *operand;
        plumb_kv *kv;
        plumb_batch *batch;
        plumb_forest f = {0};
        plumb_attention a = {2, 1, 8, 1};
        assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
        float in[4] = {1, 2, 3, 4}, out[4] = {9, 9, 9, 9};
        assert_int_equal(be->ops->buffer_create(be, 4, "b", &b), PLUMB_OK);
        plumb_tensor t = plumb_tensor_of(b, 0, 1, 4);
        PLUMB_RUN(be, write, t, in);
        assert_int_equal(plumb_backend_fault(be), PLUMB_OK);
        plumb_backend_set_fault(be, PLUMB_OK, "nothing");
        assert_int_equal(plumb_backend_fault(be), PLUMB_OK);
        plumb_backend_set_fault(be, PLUMB_E_DEVICE, "it broke at %d", 7);
        plumb_backend_set_fault(be, PLUMB_E_DATA, "a consequence");
        PLUMB_RUN(be, read, t, out);
        assert_true(out[0] == 9 && out[3] == 9);
        assert_int_equal(be->depth, 0);
        assert_int_equal(plumb_backend_fault(be), PLUMB_E_DEVICE);
        assert_string_equal(plumb_error_message(), "it broke at 7");
        assert_int_equal(be->ops->buffer_create(be, 4, "more", &more), PLUMB_E_DEVICE);
        assert_int_equal(be->ops->weight_create(be, 4, 4, PLUMB_STORE_NATIVE, NULL, &w), PLUMB_E_DEVICE);
        assert_int_equal(be->ops->operand_create(be, 4, 4, &operand), PLUMB_E_DEVICE);
        assert_int_equal(be->ops->kv_create(be, 1, 1, &a, &kv), PLUMB_E_DEVICE);
        assert_int_equal(be->ops->batch_create(be, &f, &batch), PLUMB_E_DEVICE);
        be->ops->buffer_free(be, b);
        be->ops->buffer_free(be, NULL);
        be->ops->weight_free(be, NULL);
        be->ops->operand_free(be, NULL);
        be->ops->kv_free(be, NULL);
        be->ops->batch_free(be, NULL);
        plumb_forest_free(&f);
        plumb_backend_free(be);
    }
    plumb_backend_free(NULL);
}

/* What a user can get wrong with data: latched, not crashed. */
static void bad_tokens_and_positions(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int what = 0; what < 4; what++) {
            plumb_backend *be = open_backend(names[i]);
            plumb_forest f = {0};
            const int32_t ids[3] = {1, 2, what == 0 ? 40 : 3};
            assert_int_equal(plumb_forest_add(&f, -1, ids, 3, -1, 0, NULL), PLUMB_OK);
            assert_int_equal(plumb_forest_target(&f, 1, what == 1 ? 40 : 3, 0), PLUMB_OK);
            assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
            plumb_batch *batch;
            plumb_weight *w;
            plumb_buffer *b;
            assert_int_equal(be->ops->batch_create(be, &f, &batch), PLUMB_OK);
            assert_int_equal(be->ops->weight_create(be, 40, 8, PLUMB_STORE_NATIVE, NULL, &w), PLUMB_OK);
            assert_int_equal(be->ops->buffer_create(be, 1000, "b", &b), PLUMB_OK);
            plumb_tensor rows = plumb_tensor_of(b, 0, 3, 8), row = plumb_tensor_of(b, 24, 1, 8),
                         stats = plumb_tensor_of(b, 32, 1, 4);
            plumb_tensor table = plumb_tensor_of(b, 64, what == 2 ? 2 : 3, 8), dw = plumb_tensor_of(b, 100, 40, 8);
            PLUMB_RUN(be, embedding_forward, rows, w, batch);
            PLUMB_RUN(be, embedding_backward, dw, rows, batch);
            PLUMB_RUN(be, rope_forward, rows, table, 8, batch);
            PLUMB_RUN(be, head_forward, stats, (plumb_tensor){0}, (plumb_tensor){0}, row, w, 1.0, 1000, batch);
            assert_int_equal(plumb_backend_fault(be), what < 3 ? PLUMB_E_DATA : PLUMB_OK);
            be->ops->buffer_free(be, b);
            be->ops->weight_free(be, w);
            be->ops->batch_free(be, batch);
            plumb_forest_free(&f);
            plumb_backend_free(be);
        }
}

static void sizes_that_do_not_fit(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        plumb_backend *be = open_backend(names[i]);
        plumb_buffer *b;
        plumb_weight *w;
        plumb_operand *o;
        plumb_kv *kv;
        plumb_attention a = {4, 2, (int64_t)1 << 40, 1};
        assert_int_equal(be->ops->buffer_create(be, INT64_MAX, "huge", &b), PLUMB_E_MEMORY);
        assert_non_null(strstr(plumb_error_message(), "huge"));
        assert_int_equal(be->ops->buffer_create(be, (int64_t)1 << 58, "large", &b), PLUMB_E_MEMORY);
        assert_int_equal(be->ops->weight_create(be, (int64_t)1 << 40, (int64_t)1 << 40, PLUMB_STORE_NATIVE, NULL, &w), PLUMB_E_MEMORY);
        assert_int_equal(be->ops->weight_create(be, (int64_t)1 << 40, (int64_t)1 << 40, PLUMB_STORE_INT4, NULL, &w), PLUMB_E_MEMORY);
        assert_int_equal(be->ops->operand_create(be, (int64_t)1 << 40, (int64_t)1 << 40, &o), PLUMB_E_MEMORY);
        assert_int_equal(be->ops->kv_create(be, 1 << 20, 1 << 20, &a, &kv), PLUMB_E_MEMORY);
        assert_int_equal(be->bytes, 0);
        plumb_backend_free(be);
    }
}

/* The n-th allocation fails, for every n: a status, no leak (AddressSanitizer looks), bytes back to zero. */
static void failing_allocations(void **state) {
    (void)state;
    plumb_forest f = {0};
    const int32_t ids[3] = {1, 2, 3};
    assert_int_equal(plumb_forest_add(&f, -1, ids, 3, -1, 0, NULL), PLUMB_OK);
    assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
    for (int i = 0; i < 2; i++) {
        bool all = false;
        for (long n = 1; n < 200 && !all; n++) {
            plumb_backend *be = open_backend(names[i]);
            plumb_buffer *b = NULL;
            plumb_weight *w = NULL;
            plumb_operand *o = NULL;
            plumb_kv *kv = NULL;
            plumb_batch *batch = NULL;
            plumb_attention a = {2, 1, 8, 1};
            plumb_alloc_fail_after(n);
            plumb_status s = be->ops->buffer_create(be, 100, "b", &b);
            if (s == PLUMB_OK) s = be->ops->weight_create(be, 10, 10, PLUMB_STORE_INT4, NULL, &w);
            if (s == PLUMB_OK) s = be->ops->operand_create(be, 10, 10, &o);
            if (s == PLUMB_OK) s = be->ops->kv_create(be, 2, 2, &a, &kv);
            if (s == PLUMB_OK) s = be->ops->batch_create(be, &f, &batch);
            plumb_alloc_fail_after(0);
            all = s == PLUMB_OK;
            if (!all) assert_int_equal(s, PLUMB_E_MEMORY);
            be->ops->buffer_free(be, b);
            be->ops->weight_free(be, w);
            be->ops->operand_free(be, o);
            be->ops->kv_free(be, kv);
            be->ops->batch_free(be, batch);
            assert_int_equal(be->bytes, 0);
            assert_true(!all || be->peak_bytes > 0);
            plumb_backend_free(be);
        }
        assert_true(all);
        bool opened = false;
        for (long n = 1; n < 50 && !opened; n++) { /* creation itself */
            plumb_backend *be;
            plumb_backend_options o = {.backend = names[i], .threads = 1};
            plumb_alloc_fail_after(n);
            plumb_status s = plumb_backend_create(&be, &o, NULL);
            plumb_alloc_fail_after(0);
            opened = s == PLUMB_OK;
            if (!opened) assert_int_equal(s, PLUMB_E_MEMORY);
            plumb_backend_free(be);
        }
        assert_true(opened);
    }
    plumb_forest_free(&f);
}

/* 0: the byte could be read; otherwise the signal that ended the child. */
static int read_in_child(const volatile char *address, plumb_backend *inside) {
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        if (inside && !plumb_backend_enter(inside)) _exit(1);
        char c = *address;
        if (inside) plumb_backend_leave(inside);
        _exit(c != 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) return WTERMSIG(status);
    assert_int_equal(WEXITSTATUS(status), 0);
    return 0;
}

static void *
newest_mapping(const plumb_backend *be) { /* the first member of the first entry of the list is the address */
    void *address;
    memcpy(&address, be->guarded, sizeof address);
    return address;
}

static void guard_mode(void **state) {
    (void)state;
    const char *before = getenv("PLUMB_GUARD");
    for (int guarded = 0; guarded < 2; guarded++) {
        setenv("PLUMB_GUARD", guarded ? "1" : "0", 1);
        for (int i = 0; i < 2; i++) {
            plumb_backend *be = open_backend(names[i]);
            assert_int_equal(be->guard, guarded);
            int expected = guarded ? SIGSEGV : 0;
            char *memory = plumb_guarded_alloc(be, 10);
            assert_non_null(memory);
            assert_int_equal((uintptr_t)memory % (uintptr_t)sysconf(_SC_PAGESIZE), 0);
            assert_int_equal(read_in_child(memory, NULL), expected);
            assert_int_equal(read_in_child(memory, be), 0);
            plumb_buffer *b;
            assert_int_equal(be->ops->buffer_create(be, 1000, "b", &b), PLUMB_OK);
            float in[1000] = {0}, out[1000];
            PLUMB_RUN(be, write, plumb_tensor_of(b, 0, 1, 1000), in);
            assert_int_equal(read_in_child(newest_mapping(be), NULL), expected); /* the buffer's own memory */
            assert_int_equal(read_in_child(newest_mapping(be), be), 0);
            assert_true(plumb_backend_enter(be) && plumb_backend_enter(be));
            plumb_backend_leave(be); /* still inside the outer operation */
            memory[0] = 1;
            plumb_backend_leave(be);
            assert_int_equal(read_in_child(memory + 1, NULL), expected);
            PLUMB_RUN(be, read, plumb_tensor_of(b, 0, 1, 1000), out);
            assert_memory_equal(in, out, sizeof in);
            plumb_guarded_free(be, memory);
            plumb_guarded_free(be, NULL);
            be->ops->buffer_free(be, b);
            assert_int_equal(be->bytes, 0);
            plumb_backend_free(be);
        }
    }
    if (before)
        setenv("PLUMB_GUARD", before, 1);
    else
        unsetenv("PLUMB_GUARD");
}

static void large_memory_is_aligned(void **state) {
    (void)state;
    plumb_backend *be = open_backend("ref");
    char *large[5];
    for (size_t i = 0; i < 5; i++) {
        size_t bytes = ((size_t)2 << 20) + i * 12345;
        large[i] = plumb_guarded_alloc(be, bytes);
        assert_non_null(large[i]);
        assert_int_equal((uintptr_t)large[i] % ((uintptr_t)2 << 20), 0);
        assert_true(plumb_backend_enter(be));
        assert_int_equal(large[i][0] + large[i][bytes - 1], 0);
        memset(large[i], 1, bytes);
        plumb_backend_leave(be);
    }
    plumb_guarded_free(be, large[2]);
    plumb_guarded_free(be, large[4]);
    plumb_guarded_free(be, large[0]);
    assert_true(be->bytes > (int64_t)4 << 20 && be->peak_bytes > (int64_t)10 << 20);
    plumb_backend_free(be); /* the others go with the back end */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guard_mode), /* first: it forks */
        cmocka_unit_test(every_slot_is_filled),
        cmocka_unit_test(options),
        cmocka_unit_test(precision),
        cmocka_unit_test(the_first_fault_stays),
        cmocka_unit_test(bad_tokens_and_positions),
        cmocka_unit_test(sizes_that_do_not_fit),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(large_memory_is_aligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
