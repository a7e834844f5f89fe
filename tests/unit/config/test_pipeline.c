/* A pipeline's file: how stages come about, what references stand for, and what is refused with its place. */
#include "config_test.h"
#include <unistd.h>
#include "plumb/pipeline.h"

static plumb_status load(plumb_stages *p, const char *text, char *const *arguments, int n) {
    return plumb_stages_load_text(p, text, strlen(text), "p.yaml", arguments, NULL, n);
}
static void assert_refused(const char *text, char *const *arguments, int n, const char *message) {
    plumb_stages p;
    static const plumb_stages empty;
    assert_message(load(&p, text, arguments, n), PLUMB_E_CONFIG, message);
    assert_memory_equal(&p, &empty, sizeof p);
}

static const char *const whole =
    "output_dir: runs/a/\n"
    "stop_after: 2h\n"
    "stages:\n"
    "  - command: sft\n"
    "    train_file: chats.jsonl\n"
    "    batch_size: 16\n"
    "  - train_file: pairs.jsonl\n"
    "    name: judge\n"
    "    command: reward\n"
    "  - command: ppo\n"
    "    adapter: ${sft.adapter}\n"
    "    reward_adapter: '${judge.adapter}'\n"
    "    train_file: prompts.jsonl\n"
    "    reward_funcs: ['program:check $${HOME} $1 ${sft.output_dir}']\n"
    "  - {command: dpo, adapter: \"${ppo.adapter}\", output_dir: elsewhere/dpo, train_file: '${judge.output_dir}/$.jsonl'}\n"
    "  - {command: score, adapter: '${ppo.value}', input_file: x.jsonl}\n"
    "  - {command: eval, adapter: '${dpo.adapter}', train_file: '${score.output_file}'}\n"
    "defaults:\n" /* after the stages: the order of the file does not matter */
    "  model: base\n"
    "  batch_size: 4\n"
    "  lr_scheduler_kwargs: {num_decay_steps: 3}\n"
    "  lr_scheduler_type: warmup_stable_decay\n"
    "  eval_last: 7\n";

/* A file that one stage writes and another reads, wherever it lies. */
static void passes_files_on(void **state) {
    (void)state;
    plumb_stages p;
    assert_ok(load(&p,
                   "output_dir: runs/a\n"
                   "defaults: {model: base, input_file: prompts.jsonl, reward_funcs: [json]}\n"
                   "stages:\n"
                   "- {command: bestofn}\n"
                   "- {command: dpo, train_file: '${bestofn.output_file}'}\n"
                   "- {name: again, command: bestofn, adapter: '${dpo.adapter}', output_file: best.jsonl, output_format: sft}\n"
                   "- {command: sft, train_file: '${again.output_file}'}\n"
                   "- {name: other, command: sft, train_file: rest.jsonl}\n",
                   NULL, 0));
    assert_string_equal(p.stages[0].product, "runs/a/bestofn/records.jsonl");
    assert_string_equal(p.stages[1].options.train_file, "runs/a/bestofn/records.jsonl");
    assert_string_equal(p.stages[2].product, "best.jsonl");
    assert_string_equal(p.stages[3].options.train_file, "best.jsonl");
    assert_true(p.stages[0].needs == 0 && p.stages[1].needs == 1 && p.stages[2].needs == 2 && p.stages[3].needs == 4 &&
                p.stages[4].needs == 0);
    plumb_stages_free(&p);
}

static void binds_stages_and_references(void **state) {
    (void)state;
    plumb_stages p;
    assert_ok(load(&p, whole, NULL, 0));
    assert_int_equal(p.count, 6);
    assert_string_equal(p.output_dir, "runs/a/");
    assert_string_equal(p.stop_after, "2h");
    const plumb_stage *sft = &p.stages[0], *judge = &p.stages[1], *ppo = &p.stages[2], *dpo = &p.stages[3], *score = &p.stages[4],
                      *eval = &p.stages[5];
    assert_string_equal(sft->name, "sft");
    assert_string_equal(sft->options.model, "base");
    assert_string_equal(sft->options.output_dir, "runs/a/sft");
    assert_string_equal(sft->options.run_name, "sft");
    assert_true(sft->options.batch_size == 16 && judge->options.batch_size == 4);     /* its own key, the default */
    assert_true(sft->options.eval_last == 7 && sft->options.lr_decay_steps == 3);     /* a dotted key */
    assert_true(sft->options.learning_rate == 1e-4 && dpo->options.learning_rate == 5e-6); /* of the command */
    assert_string_equal(judge->name, "judge");
    assert_int_equal(judge->command, PLUMB_FOR_REWARD);
    assert_int_equal(judge->line, 7);
    assert_string_equal(judge->product, "runs/a/judge/adapter");
    assert_string_equal(ppo->options.adapter, "runs/a/sft/adapter");
    assert_string_equal(ppo->options.reward_adapter, "runs/a/judge/adapter");
    assert_string_equal(ppo->options.reward_funcs[0], "program:check ${HOME} $1 runs/a/sft");
    assert_true(sft->needs == 0 && judge->needs == 0 && ppo->needs == 3 && dpo->needs == 6 && eval->needs == 24);
    assert_string_equal(dpo->product, "elsewhere/dpo/adapter");
    assert_string_equal(dpo->options.train_file, "runs/a/judge/$.jsonl");
    assert_string_equal(score->options.adapter, "runs/a/ppo/value");
    assert_string_equal(score->options.output_file, "runs/a/score/scores.jsonl");
    assert_string_equal(score->product, "runs/a/score/scores.jsonl");
    assert_string_equal(eval->options.output_dir, "runs/a/eval");
    assert_string_equal(eval->options.train_file, "runs/a/score/scores.jsonl");
    assert_string_equal(eval->options.adapter, "elsewhere/dpo/adapter");
    plumb_stages_free(&p);
}

/* What a value model leaves depends on what it is and how it is trained. */
static void knows_what_a_value_model_leaves(void **state) {
    static const struct { const char *settings, *product; bool made;
    } cases[] = {
        {"reward_funcs: [json]", "value", true},
        {"reward_funcs: [json]", "value_model", false},
        {"reward_funcs: [json], value_model: trunk", "value", true},
        {"reward_funcs: [json], value_model: trunk, lora: false", "value", true},
        {"reward_funcs: [json], value_model: trunk, lora: false", "value_model", false},
        {"value_model: '${judge.model}', reward_model: '${judge.model}'", "value", true},
        {"value_model: '${judge.model}', reward_model: '${judge.model}'", "value_model", false},
        {"reward_funcs: [json], value_model: '${judge.model}', lora: false", "value_model", true},
        {"reward_funcs: [json], value_model: '${judge.model}', lora: false", "value", false},
        {"reward_funcs: [json], value_model: other, train_modules: ['*norm*']", "value_model", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_stages p;
        char text[1024];
        snprintf(text, sizeof text,
                 "output_dir: runs/a\nstages:\n  - {command: reward, name: judge, lora: false, model: base, train_file: a.jsonl}\n  - "
                 "{command: ppo, model: base, train_file: b.jsonl, %s}\n"
                 "  - {command: score, model: '${ppo.%s}', input_file: c.jsonl}\n",
                 cases[i].settings, cases[i].product);
        if (!cases[i].made) {
            assert_refused(text, NULL, 0, "which stage ppo (plumb ppo) does not make");
            continue;
        }
        assert_ok(load(&p, text, NULL, 0));
        snprintf(text, sizeof text, "runs/a/ppo/%s", cases[i].product);
        assert_string_equal(p.stages[2].options.model, text);
        if (strstr(cases[i].settings, "judge")) assert_string_equal(p.stages[1].options.value_model, "runs/a/judge/model");
        plumb_stages_free(&p);
    }
}

static void arguments_come_last(void **state) {
    (void)state;
    plumb_stages p;
    char a[] = "sft.batch_size=32", b[] = "defaults.batch_size=5", c[] = "output_dir=runs/b", d[] = "stop_after=90s",
         e[] = "ppo.adapter=${judge.output_dir}/x", f[] = "sft.output_dir=there", g[] = "defaults.eval_last=2",
         h[] = "sft.train_modules=['*.${x}']";
    char *arguments[] = {a, b, c, d, e, f, g};
    assert_ok(load(&p, whole, arguments, 7));
    assert_int_equal(p.stages[0].options.batch_size, 32);
    assert_int_equal(p.stages[1].options.batch_size, 5);
    assert_int_equal(p.stages[3].options.eval_last, 2);
    assert_string_equal(p.stop_after, "90s");
    assert_string_equal(p.stages[0].product, "there/adapter");
    assert_string_equal(p.stages[1].dir, "runs/b/judge");
    assert_string_equal(p.stages[2].options.adapter, "runs/b/judge/x");
    assert_int_equal(p.stages[2].needs, 2 | 0); /* the reference to sft in the file was replaced */
    plumb_stages_free(&p);
    const struct { char *text; const char *message; } cases[] = {
        {a + 4, "argument 1: found 'batch_size'; expected STAGE.key=value"},
        {h, "argument 1: train_modules: found 'x' between ${ and }"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *one[] = {cases[i].text};
        assert_refused(whole, one, 1, cases[i].message);
    }
    static const char *const bad[][2] =
        {{"sfft.batch_size=1", "argument 1: unknown stage 'sfft'; did you mean sft?"},
         {"sft.batch_sise=1", "argument 1: unknown key 'batch_sise'; did you mean batch_size?"},
         {"sft.beta=1", "argument 1: beta: found a key of plumb dpo, grpo, rloo; expected one that plumb sft knows"},
         {"judge.batch_size=many", "argument 1: batch_size: found 'many'; expected a whole number"},
         {"defaults.prompt=a", "argument 1: prompt: found a key of plumb generate; expected one that a stage of the pipeline knows"},
         {"stop_after=soon", "argument 1: stop_after: found 'soon'; expected a time"},
         {"output_dir=", "argument 1: output_dir: found nothing"},
         {"sft.dry_run=true", "argument 1: dry_run: found it in a pipeline; expected --dry-run"},
         {"sft.adapter=${ppo.adapter}", "argument 1: adapter: found ${ppo.…}, but stage ppo (line 10) does not come before this one"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char copy[64], *one[] = {copy};
        snprintf(copy, sizeof copy, "%s", bad[i][0]);
        assert_refused(whole, one, 1, bad[i][1]);
    }
}

#define STAGE "{command: sft, model: m, train_file: t}"
static void refuses_bad_files(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "p.yaml: the file is empty"},
        {"[a]", "p.yaml:1:1: found a list; expected lines such as"},
        {"output_dir: o\n", "p.yaml: stages is missing"},
        {"output_dir: o\nstages: []\n", "p.yaml: stages is missing"},
        {"stages:\n- " STAGE "\n", "p.yaml: output_dir is missing"},
        {"output_dir: [o]\nstages: [" STAGE "]", "p.yaml:1:13: output_dir: found a list; expected a text"},
        {"output_dir:\nstages: [" STAGE "]", "output_dir: found nothing"},
        {"output_dir: o\nstages: sft", "p.yaml:2:9: stages: found a text; expected a list"},
        {"output_dir: o\nstages: [sft]", "p.yaml:2:10: stages: found a text; expected a mapping"},
        {"output_dir: o\nstage: [" STAGE "]", "p.yaml:2:1: unknown key 'stage'; did you mean stages?"},
        {"output_dir: o\nmodel: m\nstages: [" STAGE "]", "p.yaml:2:1: model: found a key of a stage; expected it below 'defaults:'"},
        {"output_dir: o\noutput_dir: o\nstages: [" STAGE "]", "p.yaml:2:1: output_dir: found the key again"},
        {"output_dir: o\nstop_after: x\nstages: [" STAGE "]", "p.yaml:2:13: stop_after: found 'x'; expected a time"},
        {"output_dir: o\nstages:\n- {name: a}\n", "p.yaml:3:3: the stage has no command"},
        {"output_dir: o\nstages:\n- {command: merge}\n", "p.yaml:3:13: unknown command of a stage 'merge'"},
        {"output_dir: o\nstages:\n- {command: rewards}\n", "unknown command of a stage 'rewards'; did you mean reward?"},
        {"output_dir: o\nstages:\n- {command: sft, command: sft}\n", "p.yaml:3:18: command: found the key again"},
        {"output_dir: o\nstages:\n- {command: sft, name: S1}\n", "p.yaml:3:24: name: found 'S1'; expected a small letter"},
        {"output_dir: o\nstages:\n- {command: sft, name: defaults}\n", "name: found 'defaults'"},
        {"output_dir: o\nstages:\n- " STAGE "\n- " STAGE "\n", "p.yaml:4:3: name: stage 1 (line 3) is called sft already"},
        {"output_dir: o\nstages:\n- {command: sft, model: m}\n", "p.yaml:3:3: stage sft: train_file is missing"},
        {"output_dir: o\nstages:\n- {command: sft, model: m, train_file: t, beta: 1}\n",
         "p.yaml:3:43: beta: found a key of plumb dpo, grpo, rloo; expected one that plumb sft knows"},
        {"output_dir: o\nstages:\n- {command: sft, model: m, train_fil: t}\n",
         "p.yaml:3:28: unknown key 'train_fil'; did you mean train_file?"},
        {"output_dir: o\nstages:\n- {command: sft, model: m, model: m}\n",
         "p.yaml:3:28: model: found the key again (it is also in line 3)"},
        {"output_dir: o\nstages:\n- {command: sft, model: {a: {b: c}}}\n", "p.yaml:3:25: model: found a mapping"},
        {"output_dir: o\nstages:\n- {command: sft, resume: never}\n", "p.yaml:3:26: resume: found it in a pipeline"},
        {"output_dir: o\ndefaults: {dry_run: true}\nstages:\n- " STAGE "\n", "p.yaml:2:21: dry_run: found it in a pipeline"},
        {"output_dir: o\ndefaults: {dpo: 1}\nstages:\n- " STAGE "\n", "p.yaml:2:12: unknown key 'dpo'"},
        {"output_dir: o\ndefaults: {beta: 1}\nstages:\n- " STAGE "\n",
         "p.yaml:2:12: beta: found a key of plumb dpo, grpo, rloo; expected one that plumb sft knows"},
        {"output_dir: o\ndefaults: {model: m, model: n}\nstages:\n- " STAGE "\n", "p.yaml:2:22: model: found the key again"},
        {"output_dir: o\ndefaults: [model]\nstages:\n- " STAGE "\n", "p.yaml:2:11: defaults: found a list"},
        {"output_dir: o\ndefaults: {batch_size: 0}\nstages:\n- " STAGE "\n", "p.yaml:2:24: batch_size: found '0'"},
        {"output_dir: o\nstages:\n- " STAGE "\n- {command: dpo, model: m, train_file: t, output_dir: o/sft/}\n",
         "p.yaml:4:3: output_dir: stage dpo writes to o/sft, where stage sft does"},
        {"output_dir: o\ndefaults: {model: m, input_file: i, output_file: x.jsonl, reward_funcs: [json]}\nstages:\n- {command: bestofn}\n- "
         "{command: bestofn, name: b}\n",
         "p.yaml:5:3: output_file: stage b writes to x.jsonl, where stage bestofn does; expected a file of its own"},
        {"output_dir: o\ndefaults: {model: m, input_file: i, reward_funcs: [json]}\nstages:\n- {command: bestofn, output_file: x.jsonl}\n- "
         "{command: bestofn, name: b, output_file: .//x.jsonl}\n",
         "p.yaml:5:3: output_file: stage b writes to .//x.jsonl, where stage bestofn does"},
        {"output_dir: o\ndefaults: {model: m, train_file: t}\nstages:\n- {command: eval, eval_last: 1}\n- {command: score, adapter: a, "
         "input_file: i, output_file: o/eval/eval_results.json}\n",
         "p.yaml:5:3: output_file: stage score writes to o/eval/eval_results.json, where stage eval does"},
        {"output_dir: o\ndefaults: {model: m, input_file: i, reward_funcs: [json]}\nstages:\n- {command: bestofn, output_file: x.jsonl}\n- "
         "{command: bestofn, name: b, output_file: y/../x.jsonl}\n",
         "p.yaml:5:3: output_file: stage b writes to y/../x.jsonl, where stage bestofn does"},
        {"output_dir: o\nstages:\n- " STAGE
         "\n- {command: bestofn, model: m, input_file: i, reward_funcs: [json], output_file: o/sft/./adapter/x.jsonl}\n",
         "p.yaml:4:3: output_file: stage bestofn writes to o/sft/./adapter/x.jsonl, where stage sft does; expected a file of its own"},
        {"output_dir: o\nstages:\n- " STAGE "\n- {command: bestofn, model: m, input_file: i, reward_funcs: [json], output_file: ./t}\n",
         "p.yaml:4:82: output_file: stage bestofn would write over t, which stage sft (line 3) reads before as train_file; expected a file "
         "that no stage has read by then"},
        {"output_dir: o\nstages:\n- {command: sft, model: m, train_file: u, eval_file: t}\n- {command: score, model: m, input_file: i, "
         "output_file: t}\n",
         "p.yaml:4:58: output_file: stage score would write over t, which stage sft (line 3) reads before as eval_file"},
        {"output_dir: o\nstages:\n- {command: sft, model: o/x/model, train_file: t}\n- {command: sft, name: x, model: m, train_file: t, "
         "lora: false}\n",
         "p.yaml:4:3: output_dir: stage x would write over o/x/model, which stage sft (line 3) reads before as model; expected a folder"},
        {"output_dir: o\nstages:\n- {command: ppo, model: m, train_file: t, value_adapter: o/ppo/value, reward_funcs: [json]}\n",
         "p.yaml:3:3: output_dir: stage ppo would write over o/ppo/value, which stage ppo (line 3) reads before as value_adapter"},
        {"output_dir: &a o\nstages: [" STAGE "]", "p.yaml:1:13: found an anchor"},
        {"output_dir: o\nstages: [" STAGE "]\n---\na: b\n", "found a second document"},
        {"output_dir: o\nstages: [" STAGE, "not valid YAML"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_refused(cases[i][0], NULL, 0, cases[i][1]);
}

/* Who can read what best-of-n writes: known before anything is sampled. */
static void knows_who_reads_records(void **state) {
    static const struct { const char *format, *reader, *message;
    } cases[] = {
        {"preference", "command: dpo", NULL},
        {"preference", "command: reward", NULL},
        {"preference", "command: grpo, reward_funcs: [json]", NULL},
        {"preference", "command: sft, field_completion: chosen", NULL},
        {"preference", "command: dpo, field_chosen: rejected, field_rejected: chosen", NULL},
        {"preference", "command: eval, eval_last: 1", NULL},
        {"sft", "command: sft", NULL},
        {"sft", "command: eval, eval_last: 1", NULL},
        {"sft", "command: ppo, reward_funcs: [json]", NULL},
        {"sft", "command: dpo",
         "p.yaml:4:26: train_file: stage dpo (plumb dpo) cannot read what stage best (line 3) writes with output_format: sft, records of "
         "prompt and completion; expected pairs"},
        {"sft", "command: reward", "expected pairs, as output_format: preference in that stage makes them"},
        {"preference", "command: sft",
         "records of prompt, chosen and rejected; expected a completion, as output_format: sft in that stage gives it (or "
         "field_completion: chosen here)"},
        {"preference", "command: dpo, field_chosen: good", "expected field_ settings that name these"},
        {"sft", "command: grpo, field_prompt: question, reward_funcs: [json]", "expected field_ settings"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_stages p;
        char text[1024];
        snprintf(text, sizeof text,
                 "output_dir: o\nstages:\n- {name: best, command: bestofn, model: m, input_file: i, reward_funcs: [json], output_format: "
                 "%s}\n- {model: m, train_file: '${best.output_file}', %s}\n",
                 cases[i].format, cases[i].reader);
        if (cases[i].message) {
            assert_refused(text, NULL, 0, cases[i].message);
            continue;
        }
        assert_ok(load(&p, text, NULL, 0));
        plumb_stages_free(&p);
    }
}

/* The words of value_model are no paths. */
static void takes_words_for_no_paths(void **state) {
    plumb_stages p;
    (void)state;
    assert_ok(load(&p,
                   "output_dir: o\nstages:\n- {command: sft, model: m, train_file: t, output_dir: .}\n- {command: ppo, model: m, "
                   "train_file: t, reward_funcs: [json]}\n",
                   NULL, 0));
    assert_int_equal(p.stages[1].needs, 0);
    plumb_stages_free(&p);
    assert_ok(
        load(&p, "output_dir: o\nstages:\n- {command: ppo, model: m, train_file: t, reward_funcs: [json], output_dir: .}\n", NULL, 0));
    plumb_stages_free(&p);
}

static void knows_a_product_however_it_is_written(void **state) {
    plumb_stages p;
    (void)state;
    assert_ok(load(&p,
                   "output_dir: o\ndefaults: {model: m, train_file: t}\nstages:\n- {command: sft}\n- {command: dpo, adapter: "
                   "x/.././o//sft/adapter}\n",
                   NULL, 0));
    assert_int_equal(p.stages[1].needs, 1);
    plumb_stages_free(&p);
}

/* A file that is there before the stage that writes it has ever begun is the user's, unless its reader says that he means the stage's. */
static void keeps_what_was_there(void **state) {
    (void)state;
    char name[] = "/tmp/plumb-stages-XXXXXX", text[1024];
    for (int i = 0; i < 3; i++) { /* by its path; by reference; by an argument in place of a reference */
        plumb_stages p;
        char argument[64], *arguments[] = {argument};
        bool reference = i == 1;
        strcpy(name + strlen(name) - 6, "XXXXXX");
        close(mkstemp(name));
        snprintf(text, sizeof text,
                 "output_dir: o\ndefaults: {model: m}\nstages:\n- {command: bestofn, input_file: i, reward_funcs: [json], output_file: "
                 "%s}\n- {command: dpo, train_file: '%s'}\n",
                 name, i ? "${bestofn.output_file}" : name);
        snprintf(argument, sizeof argument, "dpo.train_file=%s", name);
        assert_ok(load(&p, text, arguments, i == 2));
        assert_true(p.stages[1].needs == 1 && p.stages[1].refers == (uint64_t)reference);
        if (reference) assert_ok(plumb_stages_check_there(&p, 0));
        else
            assert_message(plumb_stages_check_there(&p, 2), PLUMB_E_CONFIG,
                           "p.yaml:4:3: output_file: stage bestofn, which has not begun yet, would write over /tmp/plumb-stages-");
        assert_ok(plumb_stages_check_there(&p, 1));
        unlink(name);
        assert_ok(plumb_stages_check_there(&p, 0));
        plumb_stages_free(&p);
    }
}

static void refuses_bad_references(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"${dpo.adapter}",
         "adapter: found ${dpo.…}, but stage dpo (line 6) does not come before this one; expected an earlier stage: sft, full"},
        {"${this.adapter}", "found ${this.…}, but stage this (line 5) does not come before this one"},
        {"${sfft.adapter}", "found ${sfft.…}, and no stage has this name; did you mean sft?"},
        {"${nothing.adapter}", "and no stage has this name; expected an earlier stage: sft, full"},
        {"${sft.value}", "found ${sft.value}, which stage sft (plumb sft) does not make; expected one of output_dir, adapter"},
        {"${sft.model}", "which stage sft (plumb sft) does not make"},
        {"${full.adapter}", "which stage full (plumb sft) does not make; expected one of output_dir, model"},
        {"${sft}", "found 'sft' between ${ and }; expected STAGE.PRODUCT"},
        {"${}", "found '' between ${ and }"},
        {"${sft.}", "found 'sft.' between"},
        {"${sft.adapter", "found ${ without }"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[600];
        snprintf(text, sizeof text,
                 "output_dir: o\nstages:\n- " STAGE "\n- {command: sft, name: full, lora: false, model: m, train_file: t}\n"
                 "- {name: this, command: dpo, model: m, adapter: '%s', train_file: t}\n- {command: dpo, model: m, train_file: t}\n",
                 cases[i][0]);
        if (i == 0) { /* the place is that of the value */
            char *at = strstr(text, "model: m, adapter");
            memcpy(at, "adapter: ", 9);
            snprintf(at, sizeof text - (size_t)(at - text),
                     "model: m,  adapter: '%s', train_file: t}\n- {command: dpo, model: m, train_file: t}\n", cases[i][0]);
            assert_refused(text, NULL, 0,
                           "p.yaml:5:50: adapter: found ${dpo.…}, but stage dpo (line 6) does not come before this one; expected an "
                           "earlier stage: sft, full");
            continue;
        }
        assert_refused(text, NULL, 0, cases[i][1]);
    }
    plumb_options o; /* elsewhere ${ is text */
    assert_ok(load_yaml(&o, PLUMB_FOR_SFT, "model: '${sft.adapter}'"));
    assert_string_equal(o.model, "${sft.adapter}");
    plumb_options_free(&o);
}

/* The fingerprint of a stage changes with what decides its result, also in a stage that it needs, and with nothing else. */
static void fingerprints_follow_what_decides(void **state) {
    (void)state;
    static const struct { const char *argument; unsigned changed;
    } cases[] = {
        {"sft.lora_r=4", 1 | 4 | 8 | 16 | 32},
        {"judge.lora_r=4", 2 | 4 | 8 | 16 | 32},
        {"dpo.beta=0.3", 8 | 32},
        {"sft.save_steps=3", 0},
        {"defaults.threads=2", 0},
        {"ppo.kl_coef=0.2", 4 | 8 | 16 | 32},
        {"stop_after=1h", 0},
    };
    plumb_stages before, after;
    assert_ok(load(&before, whole, NULL, 0));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char copy[64], *one[] = {copy};
        snprintf(copy, sizeof copy, "%s", cases[i].argument);
        assert_ok(load(&after, whole, one, 1));
        for (int k = 0; k < before.count; k++) {
            bool changed = strcmp(before.stages[k].settings, after.stages[k].settings) != 0;
            if (changed != (cases[i].changed >> k & 1))
                fail_msg("%s: stage %s %s", cases[i].argument, before.stages[k].name, changed ? "changed" : "did not change");
        }
        assert_true(before.fingerprint != after.fingerprint);
        plumb_stages_free(&after);
    }
    plumb_stages_free(&before);
}

static void finds_stages_by_name(void **state) {
    (void)state;
    plumb_stages p;
    int k;
    assert_ok(load(&p, whole, NULL, 0));
    assert_ok(plumb_stages_find(&p, "dpo", &k));
    assert_int_equal(k, 3);
    assert_message(plumb_stages_find(&p, "juge", &k), PLUMB_E_CONFIG, "p.yaml has no stage 'juge'; did you mean judge");
    plumb_stages_free(&p);
}

static void reads_the_command_line(void **state) {
    (void)state;
    plumb_run_line l;
    char name[] = "run", file[] = "p.yaml", from[] = "--from", stage[] = "dpo", only[] = "--only=ppo", dry[] = "--dry-run",
         set[] = "sft.seed=1", help[] = "-h", bad[] = "--resume";
    char *line[] = {name, set, file, from, stage, only, dry};
    assert_ok(plumb_run_parse_args(&l, 7, line));
    assert_string_equal(l.path, "p.yaml");
    assert_string_equal(l.from, "dpo");
    assert_string_equal(l.only, "ppo");
    assert_true(l.dry_run && !l.help && l.n_arguments == 1 && l.positions[0] == 1);
    plumb_run_line_free(&l);
    char *asks[] = {name, bad, help}, *refused[] = {name, file, bad}, *bare[] = {name, file, from}, *twice[] = {name, file, file},
         *none[] = {name, dry};
    assert_ok(plumb_run_parse_args(&l, 3, asks));
    assert_true(l.help);
    assert_message(plumb_run_parse_args(&l, 3, refused), PLUMB_E_CONFIG, "argument 2: found '--resume'; expected --from STAGE");
    assert_message(plumb_run_parse_args(&l, 3, bare), PLUMB_E_CONFIG, "argument 2: found '--from'; expected the name of a stage");
    assert_message(plumb_run_parse_args(&l, 3, twice), PLUMB_E_CONFIG, "argument 2: found 'p.yaml'; expected STAGE.key=value");
    assert_message(plumb_run_parse_args(&l, 2, none), PLUMB_E_CONFIG, "the pipeline's file is missing");
}

/* The files that come with plumb say only what their commands know. */
static void shipped_files_load(void **state) {
    (void)state;
    static const struct { const char *path; int command;
    } files[] = {
        {"sft/smollm2-135m", PLUMB_FOR_SFT},       {"dpo/smollm2-135m", PLUMB_FOR_DPO},
        {"reward/smollm2-135m", PLUMB_FOR_REWARD}, {"ppo/smollm2-135m", PLUMB_FOR_PPO},
        {"grpo/smollm2-135m", PLUMB_FOR_GRPO},     {"quickstart/sft", PLUMB_FOR_SFT},
        {"quickstart/dpo", PLUMB_FOR_DPO},         {"quickstart/reward", PLUMB_FOR_REWARD},
        {"quickstart/ppo", PLUMB_FOR_PPO},         {"quickstart/eval-answers", PLUMB_FOR_EVAL},
        {"quickstart/eval-pairs", PLUMB_FOR_EVAL}, {"quickstart/reward-answers", PLUMB_FOR_BESTOFN},
    };
    char path[512];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        plumb_options o;
        snprintf(path, sizeof path, PLUMB_SOURCE_DIR "/configs/%s.yaml", files[i].path);
        assert_ok(plumb_options_load(&o, files[i].command, path, NULL, 0));
        assert_non_null(o.model);
        plumb_options_free(&o);
    }
    plumb_stages p;
    assert_ok(plumb_stages_load(&p, PLUMB_SOURCE_DIR "/configs/pipeline.yaml", NULL, NULL, 0));
    assert_int_equal(p.count, 4);
    assert_true(p.stages[3].needs == 6 && p.stages[3].options.batch_size == 32);
    plumb_stages_free(&p);
}

static void survives_failed_allocations(void **state) {
    (void)state;
    int failures = 0;
    for (long n = 1; n < 20000; n += 7) {
        plumb_stages p;
        plumb_alloc_fail_after(n);
        plumb_status status = load(&p, whole, NULL, 0);
        plumb_alloc_fail_after(0);
        plumb_stages_free(&p);
        if (status == PLUMB_OK) break;
        assert_int_equal(status, PLUMB_E_MEMORY);
        failures++;
    }
    assert_in_range(failures, 30, 2800);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(binds_stages_and_references),
        cmocka_unit_test(knows_what_a_value_model_leaves),
        cmocka_unit_test(passes_files_on),
        cmocka_unit_test(arguments_come_last),
        cmocka_unit_test(refuses_bad_files),
        cmocka_unit_test(knows_who_reads_records),
        cmocka_unit_test(keeps_what_was_there),
        cmocka_unit_test(takes_words_for_no_paths),
        cmocka_unit_test(knows_a_product_however_it_is_written),
        cmocka_unit_test(refuses_bad_references),
        cmocka_unit_test(fingerprints_follow_what_decides),
        cmocka_unit_test(finds_stages_by_name),
        cmocka_unit_test(reads_the_command_line),
        cmocka_unit_test(shipped_files_load),
        cmocka_unit_test(survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
