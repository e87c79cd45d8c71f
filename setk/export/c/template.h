/* PREFIX.h: FACTS
 *
 * static MEMORY_TYPE state[PREFIX_UPPER_STATE_BYTES / 4], scratch[PREFIX_UPPER_SCRATCH_BYTES / 4];
 * PREFIX_state *s = PREFIX_init(state);
 * for (;;) PROCESS_NAME(s, scratch, in, out);   in and out: PREFIX_UPPER_HOP samples
 */
#ifndef PREFIX_UPPER_H
#define PREFIX_UPPER_H
#include <stdint.h>

#define PREFIX_UPPER_RATE RATE_VALUE            /* samples per second */
#define PREFIX_UPPER_HOP HOP_VALUE              /* samples that a call reads and writes */
#define PREFIX_UPPER_DELAY DELAY_VALUE          /* samples by which the output is later than the input */
#define PREFIX_UPPER_LATENCY LATENCY_VALUE      /* algorithmic latency in samples: the delay, and the hop that must be complete */
#define PREFIX_UPPER_STATE_BYTES STATE_VALUE    /* memory of one stream */
#define PREFIX_UPPER_SCRATCH_BYTES SCRATCH_VALUE /* memory that is free between calls, and that streams of a thread may share */

#ifdef __cplusplus
extern "C" {
#endif

/* These facts as JSON, for programs that load this one as a shared library. */
extern const char PREFIX_about[];

typedef struct PREFIX_state PREFIX_state;

/* Start a stream in the caller's memory of PREFIX_UPPER_STATE_BYTESALIGNMENT_NOTE. The memory may not move.UNPACK_NOTE */
PREFIX_state *PREFIX_init(void *memory);

/* Reduce noise by at most so many dB: the input, as late as the output, stays in it that far below its level. 0 passes the input,
 * 200 and more removes the limit, as at the start. For any time between calls. */
void PREFIX_set_limit(PREFIX_state *state, LIMIT_TYPE decibels);

/* Return to silence, as before the first sample. The limit stays. */
void PREFIX_reset(PREFIX_state *state);

PROCESS_TEXT
void PREFIX_process_s16(PREFIX_state *state, void *scratch, const int16_t *in, int16_t *out);

#ifdef __cplusplus
}
#endif
#endif
