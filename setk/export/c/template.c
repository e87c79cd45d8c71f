/* The constants and the program of this model. */
typedef struct {
    const float *constants;
    const int8_t *weights;
    const float *steps;
} Model;

CONSTANTS_TEXT

RESET_TEXT

const char PREFIX_about[] = ABOUT_TEXT;

/* The interface. State and scratch begin at the first multiple of 64 bytes inside the caller's memory. */
struct PREFIX_state {
    float floats[STATE_FLOATS];
    float kept;                            /* gain of the input in the output */
    int32_t at;                            /* place in `line`, the input that waits for the output after the model forgot it */
    float line[LINE_FLOATS + 1];
};

typedef char state_is_as_large_as_stated[sizeof(PREFIX_state) + 64 == PREFIX_UPPER_STATE_BYTES ? 1 : -1];

static float *aligned(void *memory)
{
    return (float *)(void *)((char *)memory + (64 - (uintptr_t)memory % 64) % 64);
}

static void run_program(const int32_t *words, int count, float *state, float *scratch, const float *in, float *out)
{
    Memory memory;
    memory.constants = model.constants, memory.weights = model.weights, memory.steps = model.steps;
    memory.state = state, memory.scratch = scratch;
    memory.in = in, memory.out = out;
    run(words, count, &memory);
}
UNPACK_FUNCTION
void PREFIX_reset(PREFIX_state *state)
{
    run_program(reset_program, (int)(sizeof reset_program / sizeof *reset_program), state->floats, NULL, NULL, NULL);
    state->at = 0;
    for (int i = 0; i <= LINE_FLOATS; i++) state->line[i] = 0.0f;
}

PREFIX_state *PREFIX_init(void *memory)
{
    PREFIX_state *state = (PREFIX_state *)(void *)aligned(memory);UNPACK_CALL
    PREFIX_reset(state);
    state->kept = 0.0f;
    return state;
}

void PREFIX_set_limit(PREFIX_state *state, float decibels)
{
    state->kept = limit_gain(decibels);
}

void PREFIX_process(PREFIX_state *state, void *scratch, const float *in, float *out)
{
    float *input = aligned(scratch) + SCRATCH_FLOATS;
    leaving(state->floats + HISTORY_AT, HISTORY_SPLIT, HISTORY_PAST, in, input, PREFIX_UPPER_HOP);
    state->at = late(state->line, LINE_FLOATS, state->at, input, input, PREFIX_UPPER_HOP);
    run_program(program, (int)(sizeof program / sizeof *program), state->floats, aligned(scratch), in, out);
    if (state->kept > 0.0f) mix(out, input, state->kept, PREFIX_UPPER_HOP);
}

void PREFIX_process_s16(PREFIX_state *state, void *scratch, const int16_t *in, int16_t *out)
{
    float *samples = aligned(scratch) + SCRATCH_FLOATS + PREFIX_UPPER_HOP;
    for (int i = 0; i < PREFIX_UPPER_HOP; i++) samples[i] = (float)in[i] / 32768.0f;
    PREFIX_process(state, scratch, samples, samples);
    for (int i = 0; i < PREFIX_UPPER_HOP; i++) {
        float y = samples[i] * 32768.0f;
        y = y > 32767.0f ? 32767.0f : y > -32768.0f ? y : -32768.0f;
        out[i] = (int16_t)(y < 0.0f ? y - 0.5f : y + 0.5f);
    }
}

#if defined(SETK_SELFTEST) || defined(SETK_MAIN)
#include <stdio.h>
static float state_memory[PREFIX_UPPER_STATE_BYTES / 4], scratch_memory[PREFIX_UPPER_SCRATCH_BYTES / 4];
#endif

#ifdef SETK_SELFTEST
/* Noise that grows and fades, the same everywhere: 16-bit numbers from a linear congruential generator. */
static void test_signal(int hop, float *samples)
{
    static uint32_t random = 1;
    if (hop == 0) random = 1;
    for (int i = 0; i < PREFIX_UPPER_HOP; i++) {
        random = random * 1664525u + 1013904223u;
        samples[i] = (float)((int32_t)(random >> 16) - 32768) / 32768.0f * 0.02f * (float)(1 + hop % 8);
    }
}

EXPECTED_TEXT

/* Runs the program on the test signal and compares its last hops with what the checkpoint computes. */
int main(void)
{
    PREFIX_state *state = PREFIX_init(state_memory);
    double signal = 1e-30, error = 1e-30;
    uint64_t hash = 14695981039346656037u; /* FNV-1a of the output's bits */
    for (int hop = 0; hop < TEST_HOPS; hop++) {
        float samples[PREFIX_UPPER_HOP];
        test_signal(hop, samples);
        PREFIX_process(state, scratch_memory, samples, samples);
        for (int i = 0; i < PREFIX_UPPER_HOP; i++) {
            union { float f; uint32_t u; } bits_of;
            bits_of.f = samples[i];
            hash = (hash ^ bits_of.u) * 1099511628211u;
            if (hop >= TEST_HOPS - EXPECTED_HOPS) {
                double e = expected[(hop - (TEST_HOPS - EXPECTED_HOPS)) * PREFIX_UPPER_HOP + i];
                signal += e * e;
                error += (samples[i] - e) * (samples[i] - e);
            }
        }
    }
    int passed = signal > error * LEAST_RATIO;
    printf("PREFIX: signal to error 10^%s%d, output %08lx%08lx: %s\n", passed ? ">=" : "<", LEAST_EXPONENT,
           (unsigned long)(hash >> 32), (unsigned long)(hash & 0xffffffffu), passed ? "passed" : "FAILED");
    return !passed;
}
#endif

#if defined(SETK_MAIN) && !defined(SETK_SELFTEST)
/* A filter: raw samples from stdin to stdout, s16le or with the argument f32 float, as many as came in, without the delay. */
int main(int argc, char **argv)
{
    int wide = argc == 2 && argv[1][0] == 'f';
    if (argc > 2 || (argc == 2 && !wide)) {
        fprintf(stderr, "usage: PREFIX [f32] <in >out   raw mono at %d Hz, 16-bit or float\n", PREFIX_UPPER_RATE);
        return 2;
    }
    static union { float wide[PREFIX_UPPER_HOP]; int16_t narrow[PREFIX_UPPER_HOP]; } hop;
    PREFIX_state *state = PREFIX_init(state_memory);
    size_t each = wide ? sizeof(float) : sizeof(int16_t), owed = 0;
    size_t skip = PREFIX_UPPER_DELAY;
    for (;;) {
        size_t got = fread(&hop, each, PREFIX_UPPER_HOP, stdin);
        owed += got;
        if (owed == 0) break;
        for (size_t i = got; i < PREFIX_UPPER_HOP; i++) {
            if (wide) hop.wide[i] = 0.0f;
            else hop.narrow[i] = 0;
        }
        if (wide) PREFIX_process(state, scratch_memory, hop.wide, hop.wide);
        else PREFIX_process_s16(state, scratch_memory, hop.narrow, hop.narrow);
        size_t first = skip < PREFIX_UPPER_HOP ? skip : PREFIX_UPPER_HOP, count = PREFIX_UPPER_HOP - first;
        skip -= first;
        count = count < owed ? count : owed;
        owed -= count;
        if (fwrite((char *)&hop + first * each, each, count, stdout) != count || fflush(stdout)) {
            perror("PREFIX: standard output");
            return 1;
        }
    }
    if (ferror(stdin)) {
        perror("PREFIX: standard input");
        return 1;
    }
    return 0;
}
#endif
