/* The constants and the program of this model. */
CONSTANTS_TEXT

const char PREFIX_about[] = ABOUT_TEXT;

/* The interface. State and scratch begin at the first multiple of ALIGNMENT bytes inside the caller's memory. */
enum { ALIGNMENT = 8 };

struct PREFIX_state {
    int16_t numbers[STATE_NUMBERS];
    int16_t line[PREFIX_UPPER_DELAY]; /* the input that waits for the output */
    int32_t kept;                     /* gain of the input in the output, Q14 */
};
typedef char state_is_as_large_as_stated[sizeof(PREFIX_state) + ALIGNMENT <= PREFIX_UPPER_STATE_BYTES ? 1 : -1];
typedef char delay_is_one_hop[PREFIX_UPPER_DELAY == PREFIX_UPPER_HOP ? 1 : -1];

static int16_t *aligned(void *memory)
{
    return (int16_t *)(void *)((char *)memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT);
}

void PREFIX_reset(PREFIX_state *state)
{
    for (int i = 0; i < STATE_NUMBERS; i++) state->numbers[i] = 0;
    for (int i = 0; i < PREFIX_UPPER_DELAY; i++) state->line[i] = 0;
}

PREFIX_state *PREFIX_init(void *memory)
{
    PREFIX_state *state = (PREFIX_state *)(void *)aligned(memory);
    state->kept = 0;
    PREFIX_reset(state);
    return state;
}

/* 10^(-decibels / 20) as a power of two: 2786635 is log2(10) / 20 in Q24. */
void PREFIX_set_limit(PREFIX_state *state, int decibels)
{
    int exponent;
    const int32_t mantissa = power(-2786635 * (decibels < 0 ? 0 : decibels < 200 ? decibels : 200), &exponent);
    state->kept = decibels < 200 ? product_of(1, mantissa, exponent + 14, 1 << 14) : 0;
}

void PREFIX_process_s16(PREFIX_state *state, void *scratch, const int16_t *in, int16_t *out)
{
    Memory memory;
    int16_t *input = aligned(scratch) + SCRATCH_NUMBERS;
    for (int i = 0; i < PREFIX_UPPER_HOP; i++) input[i] = in[i];
    memory.bytes = bytes, memory.shorts = shorts, memory.longs = longs;
    memory.state = state->numbers, memory.scratch = aligned(scratch);
    memory.in = input, memory.out = out;
    run(program, (int)(sizeof program / sizeof *program), &memory);
    for (int i = 0; i < PREFIX_UPPER_HOP; i++) {
        out[i] = (int16_t)(out[i] + (((state->line[i] - out[i]) * state->kept) >> 14));
        state->line[i] = input[i];
    }
}

#if defined(SETK_SELFTEST) || defined(SETK_MAIN)
#include <stdio.h>
static int64_t state_memory[PREFIX_UPPER_STATE_BYTES / 8 + 1], scratch_memory[PREFIX_UPPER_SCRATCH_BYTES / 8 + 1];
#endif

#ifdef SETK_SELFTEST
/* Noise that grows and fades: 16-bit numbers from a linear congruential generator. */
static void test_signal(int hop, int16_t *samples)
{
    static uint32_t random = 1;
    if (hop == 0) random = 1;
    for (int i = 0; i < PREFIX_UPPER_HOP; i++) {
        random = random * 1664525u + 1013904223u;
        samples[i] = (int16_t)(((int32_t)(random >> 16) - 32768) * (1 + hop % 8) / 50);
    }
}

EXPECTED_TEXT

/* Runs the program on the test signal. Its last hops must have the same bits as those of setk's reference. */
int main(void)
{
    PREFIX_state *state = PREFIX_init(state_memory);
    uint64_t hash = 14695981039346656037u; /* FNV-1a of the output */
    int different = 0;
    for (int hop = 0; hop < TEST_HOPS; hop++) {
        int16_t samples[PREFIX_UPPER_HOP];
        test_signal(hop, samples);
        PREFIX_process_s16(state, scratch_memory, samples, samples);
        for (int i = 0; i < PREFIX_UPPER_HOP; i++) {
            hash = (hash ^ (uint16_t)samples[i]) * 1099511628211u;
            if (hop >= TEST_HOPS - EXPECTED_HOPS)
                different += samples[i] != expected[(hop - (TEST_HOPS - EXPECTED_HOPS)) * PREFIX_UPPER_HOP + i];
        }
    }
    printf("PREFIX: %d samples differ, output %08lx%08lx: %s\n", different, (unsigned long)(hash >> 32),
           (unsigned long)(hash & 0xffffffffu), different ? "FAILED" : "passed");
    return different != 0;
}
#endif

#if defined(SETK_MAIN) && !defined(SETK_SELFTEST)
/* A filter: raw samples from stdin to stdout, s16le, as many as came in, without the delay. */
int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        fprintf(stderr, "usage: PREFIX <in >out   raw mono at %d Hz, 16-bit\n", PREFIX_UPPER_RATE);
        return 2;
    }
    static int16_t hop[PREFIX_UPPER_HOP];
    PREFIX_state *state = PREFIX_init(state_memory);
    size_t owed = 0, skip = PREFIX_UPPER_DELAY;
    for (;;) {
        size_t got = fread(hop, sizeof *hop, PREFIX_UPPER_HOP, stdin);
        owed += got;
        if (owed == 0) break;
        for (size_t i = got; i < PREFIX_UPPER_HOP; i++) hop[i] = 0;
        PREFIX_process_s16(state, scratch_memory, hop, hop);
        size_t first = skip < PREFIX_UPPER_HOP ? skip : PREFIX_UPPER_HOP, count = PREFIX_UPPER_HOP - first;
        skip -= first;
        count = count < owed ? count : owed;
        owed -= count;
        if (fwrite(hop + first, sizeof *hop, count, stdout) != count || fflush(stdout)) {
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
