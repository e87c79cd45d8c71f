/* A live stream at any rate around a model: resampler, hops, resampler, and a queue, so that as many samples come out as go in. */
enum { LIVE_BLOCK = 128 };

/* Runs one hop of a model. */
typedef void (*Hop)(void *model, const float *in, float *out);

typedef struct {
    Hop run;
    void *model;
    int resampled, hop;
    int skip;             /* outputs of the model that belong to times before the first input */
    int delay;            /* samples by which the output is later than the input */
    int collected, queued, next, size, at;
    Resampler down, up;
    float *in, *out;      /* a hop */
    float *low, *high;    /* what a block and a hop become */
    float *queue, *line;  /* rings: output that is ready, and the input, which waits for it */
} Live;

/* Sizes for a model of `hop` and `delay` samples at `model_rate`. */
static void live_size(Live *live, int rate, int model_rate, int hop, int delay)
{
    double ratio = (double)rate / model_rate, held;
    live->resampled = rate != model_rate;
    live->hop = hop, live->skip = delay;
    resampler_size(&live->down, rate, model_rate);
    resampler_size(&live->up, model_rate, rate);
    /* A block may end anywhere in a hop, and each resampler holds back half of its sinc. */
    held = live->resampled ? live->down.half + live->up.half * ratio + 3 : 0;
    live->delay = (int)((hop + delay) * ratio + held);
    live->size = live->delay + LIVE_BLOCK + 2 * (int)(hop * ratio + 1);
}

static int live_low(const Live *live) { return resampled_most(&live->down, LIVE_BLOCK); }
static int live_high(const Live *live) { return resampled_most(&live->up, live->hop); }

/* Floats of memory that a stream needs. */
static int live_floats(const Live *live)
{
    int resamplers = live->resampled ? resampler_floats(&live->down) + resampler_floats(&live->up) + live_low(live) + live_high(live) : 0;
    return 2 * live->hop + live->size + live->delay + resamplers;
}

/* Starts a stream with sizes. The model must be in its first state. */
static void live_start(Live *live, float *memory, Hop run, void *model)
{
    live->run = run, live->model = model;
    live->in = memory, memory += live->hop;
    live->out = memory, memory += live->hop;
    live->queue = memory, memory += live->size;
    live->line = memory, memory += live->delay;
    if (live->resampled) {
        live->low = memory, memory += live_low(live);
        live->high = memory, memory += live_high(live);
        resampler_start(&live->down, memory), memory += resampler_floats(&live->down);
        resampler_start(&live->up, memory);
    }
    for (int i = 0; i < live->size; i++) live->queue[i] = 0;
    for (int i = 0; i < live->delay; i++) live->line[i] = 0;
    live->collected = live->next = live->at = 0;
    live->queued = live->delay;
}

static void live_queue(Live *live, const float *samples, int count)
{
    int end = (live->next + live->queued) % live->size;
    for (int i = 0; i < count; i++) {
        live->queue[end] = samples[i];
        end = end + 1 < live->size ? end + 1 : 0;
    }
    live->queued += count;
}

/* Queues what the model made of a hop, less what is from before the first input. */
static void live_hop(Live *live)
{
    int skipped = live->skip < live->hop ? live->skip : live->hop, count = live->hop - skipped;
    const float *enhanced = live->out + skipped;
    live->run(live->model, live->in, live->out);
    live->collected = 0;
    live->skip -= skipped;
    if (!live->resampled) live_queue(live, enhanced, count);
    for (int at = 0; live->resampled && at < count; at += RESAMPLE_BLOCK) {
        int part = count - at < RESAMPLE_BLOCK ? count - at : RESAMPLE_BLOCK;
        live_queue(live, live->high, resample(&live->up, enhanced + at, part, live->high));
    }
}

/* Reads up to LIVE_BLOCK samples and writes as many, live->delay late: enhanced to `wet`, the input to `dry`. */
static void live_process(Live *live, const float *in, float *wet, float *dry, int count)
{
    float clean[LIVE_BLOCK];
    const float *samples = clean;
    int n = count;
    for (int i = 0; i < count; i++) clean[i] = sane(in[i]);
    if (live->resampled) {
        samples = live->low;
        n = resample(&live->down, clean, count, live->low);
    }
    for (int i = 0; i < n; i++) {
        live->in[live->collected++] = samples[i];
        if (live->collected == live->hop) live_hop(live);
    }
    live->at = late(live->line, live->delay, live->at, clean, dry, count);
    for (int i = 0; i < count; i++) {
        wet[i] = live->queue[live->next];
        live->next = live->next + 1 < live->size ? live->next + 1 : 0;
    }
    live->queued -= count;
}
