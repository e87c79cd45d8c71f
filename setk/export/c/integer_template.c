/* The constants and the program of this model. */
CONSTANTS_TEXT

/* The interface. State and scratch begin at the first multiple of 8 bytes inside the caller's memory. */
struct PREFIX_state {
    int16_t numbers[1];
};

static int16_t *aligned(void *memory)
{
    return (int16_t *)(void *)((char *)memory + (8 - (uintptr_t)memory % 8) % 8);
}

void PREFIX_reset(PREFIX_state *state)
{
    for (int i = 0; i < STATE_NUMBERS; i++) state->numbers[i] = 0;
}

PREFIX_state *PREFIX_init(void *memory)
{
    PREFIX_state *state = (PREFIX_state *)(void *)aligned(memory);
    PREFIX_reset(state);
    return state;
}

void PREFIX_process_s16(PREFIX_state *state, void *scratch, const int16_t *in, int16_t *out)
{
    Memory memory;
    memory.bytes = bytes, memory.shorts = shorts, memory.longs = longs;
    memory.state = state->numbers, memory.scratch = aligned(scratch);
    memory.in = in, memory.out = out;
    run(program, (int)(sizeof program / sizeof *program), &memory);
}

#if defined(SETK_SELFTEST) || defined(SETK_MAIN)
#include <stdio.h>
static int64_t state_memory[PREFIX_UPPER_STATE_BYTES / 8], scratch_memory[PREFIX_UPPER_SCRATCH_BYTES / 8];
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
int main(void)
{
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
        if (fwrite(hop + first, sizeof *hop, count, stdout) != count || fflush(stdout)) return 1;
    }
    return 0;
}
#endif
