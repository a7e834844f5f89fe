/* losses/sampling.json: what transformers' processors leave of a distribution, in double. */
#include "golden.h"
#include "sampling_case.h"

plumb_status golden_sampling(const json_t *c, double *worst) {
    sampling_case s;
    plumb_sampler *sampler;
    sampling_case_read(&s, c);
    plumb_status status = plumb_sampler_create(&sampler, s.V);
    if (status == PLUMB_OK) {
        plumb_sampler_process_f64(sampler, &s.o, s.logits, s.history, s.count, s.generated);
        *worst = sampling_case_error(&s, s.logits);
        plumb_sampler_free(sampler);
    }
    sampling_case_free(&s);
    return status;
}
